"""What offers and updates wait for while one of two services is asked to end, or killed, and comes back.

Offers are queued by REST and due at once, disruptions are reported by HTTP, each on a network of its own, so that all
partitions are asked; both are followed to the sandbox network. Beside them: the same while nothing happens.
"""

from __future__ import annotations

import signal
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

from ops.embedded.system import System
from tests.builders import at_once
from tests.journey import PATIENCE_S, Journey, wait_for

SERVICES: Final = ("detector", "publisher", "scheduler")
AIM_S: Final = 1.0
EVERY_S, RAIN_S, END_AT_S, BACK_AFTER_S = 0.1, 16.0, 4.0, 3.0
NUMBERS: Final = count()


@dataclass
class Rain:
    """Offers and disruptions as they come, each with when it was due or acknowledged."""

    journey: Journey
    campaign: str
    offers: dict[str, float] = field(default_factory=dict)
    events: dict[str, float] = field(default_factory=dict)

    def fall(self) -> None:
        until_s = time.monotonic() + RAIN_S
        while time.monotonic() < until_s:
            account = ("social-en", "social-fr")[len(self.offers) % 2]
            (offer,) = self.journey.offers(self.campaign, {"account": account})
            self.offers[offer] = time.monotonic()
            name = f"deploy-{next(NUMBERS)}-"
            self.events[name] = self.journey.event(name, network=name, title=f"Nothing goes {name}")
            time.sleep(EVERY_S)

    def waits_s(self) -> tuple[list[float], list[float]]:
        """Return how long offers and first updates took, when all have arrived."""
        return self._of(self.offers, "key"), self._of(self.events, "text")

    def _of(self, sent: dict[str, float], where: str) -> list[float]:
        found: dict[str, float] = {}

        def all_there() -> bool:
            for seen in self.journey.seen():
                for name in sent.keys() - found.keys():
                    if name in seen[where]:
                        found[name] = seen["at_s"]
            return found.keys() == sent.keys()

        wait_for(f"all {len(sent)}", all_there, patience_s=2 * PATIENCE_S)
        return [max(0.0, found[name] - at_s) for name, at_s in sent.items()]


def measure() -> list[dict[str, Any]]:
    """Run it; returns the rows of the table."""
    copies, env = dict.fromkeys(SERVICES, 2), {"INTERLOCK_REQUESTS_PER_MINUTE": "0"}
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        System(Path(folder), progress=_say, copies=copies, env=env) as system,
    ):
        system.stopping = True  # Nobody starts it again meanwhile.
        with system.client("detector", "admin") as admin:
            admin.put("/v1/policy", json=at_once()).raise_for_status()
        with Journey(system) as journey:
            campaign = journey.campaign()
            rows.append(_row("nothing happens", *_play(system, Rain(journey, campaign))))
            for service in SERVICES:
                for number, what in ((signal.SIGTERM, "asked to end"), (signal.SIGKILL, "killed")):
                    _say(f"one of two {service}s is {what}")
                    waits = _play(system, Rain(journey, campaign), f"{service}-2", number)
                    is_asked = number is signal.SIGTERM
                    rows.append(_row(f"one of two {service}s is {what}", *waits, aims=is_asked))
    return rows


def _play(
    system: System, rain: Rain, name: str = "", number: signal.Signals = signal.SIGTERM
) -> tuple[list[float], list[float]]:
    falls = threading.Thread(target=rain.fall)
    falls.start()
    time.sleep(END_AT_S)
    if name:
        system.children[name].stop(number)
        time.sleep(BACK_AFTER_S)
        system.replace(name)
    falls.join()
    return rain.waits_s()


def _row(
    what: str, offers: list[float], updates: list[float], *, aims: bool = False
) -> dict[str, Any]:
    longest = max(*offers, *updates)
    return {
        "what": what,
        "aim": f"longest ≤ {AIM_S:.0f} s" if aims else "",
        "measured": f"offers p50 {_ms(statistics.median(offers))}, longest {max(offers):.2f} s, n {len(offers)}; "
        f"first updates p50 {_ms(statistics.median(updates))}, longest {max(updates):.2f} s, n {len(updates)}",
        "met": longest <= AIM_S if aims else None,
    }


def _ms(seconds: float) -> str:
    return f"{seconds * 1_000:.0f} ms"


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)
