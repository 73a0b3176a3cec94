"""What every detector knows of all holds and incidents, whichever of them decided: what people are told.

| topic | consumed by | behind |
| --- | --- | --- |
| ops.holds | `on_holds` | `GET /v1/holds` |
| ops.incidents | `on_incidents` | `GET /v1/incidents` |

The fold asks none of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from faststream.kafka import KafkaBroker
from prometheus_client import CollectorRegistry, Gauge

from schemas import envelope
from schemas.holds import HoldOpened, HoldReleased, OpenHolds
from schemas.incidents import Incident
from schemas.topics import FENCE_KEY, HOLDS, INCIDENTS
from services.kit import broker as kafka

CLOSED_INCIDENTS: Final = 500


class Views:
    """The open holds and the latest incidents, as their topics tell them."""

    def __init__(
        self, broker: KafkaBroker, *, registry: CollectorRegistry, crash: kafka.Crash
    ) -> None:
        self.holds, self.incidents = OpenHolds(), dict[str, Incident]()
        self.are_read = False
        Gauge("interlock_open_holds", "Holds now open.", registry=registry).set_function(
            lambda: len(self.holds)
        )
        self._both = [
            kafka.subscribe(broker, topic.name, handler, view=True, crash=crash)
            for topic, handler in ((HOLDS, self.on_holds), (INCIDENTS, self.on_incidents))
        ]

    async def read(self) -> None:
        """Wait until the holds and incidents there were are known; until then nobody may be told them."""
        for view in self._both:
            await view.read_up()
        self.are_read = True

    def remarks(self) -> dict[str, str]:
        """Return what cannot be told yet, with the reason."""
        return {} if self.are_read else {"views": "reading the holds and incidents there were"}

    async def on_holds(self, records: Sequence[kafka.Record]) -> None:
        for record in records:
            if (record.key or b"").startswith(FENCE_KEY.encode()):
                continue
            found = envelope.read(record.headers, record.value, allowed=(HoldOpened, HoldReleased))
            if isinstance(found, envelope.Envelope):
                assert isinstance(found.record, HoldOpened | HoldReleased)
                self.holds.apply(found.record)

    async def on_incidents(self, records: Sequence[kafka.Record]) -> None:
        for record in records:
            found = envelope.read(record.headers, record.value, allowed=(Incident,))
            if isinstance(found, envelope.Envelope):
                assert isinstance(found.record, Incident)
                self.incidents.pop(found.record.incident_id, None)  # The newest stand last.
                self.incidents[found.record.incident_id] = found.record
        closed = [i for i, incident in self.incidents.items() if incident.status == "closed"]
        for incident_id in closed[:-CLOSED_INCIDENTS]:
            del self.incidents[incident_id]
