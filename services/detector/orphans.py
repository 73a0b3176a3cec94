"""Holds and incidents that nobody ends: what opened them is lost, and the state goes back to before that.

A detector that ended had said more than its last snapshot knows. Whoever takes its partition over folds those records
again, to the same words; unless Kafka has deleted them meanwhile. Then everything is held until a person has looked.
That hold stands in for those whose beginning is gone, and behind the look their incidents are closed: what stands was
said again, as other incidents, and nobody else would know of the end of these.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final, Protocol

import structlog

from schemas.disruptions import ReleaseHold
from schemas.holds import HoldOpened
from schemas.incidents import Incident
from services.detector.fold import LOST
from services.detector.state import State, items_of, partition_of, place_of
from services.detector.store import SOURCE
from services.detector.stream import Stream
from services.detector.views import Views

LOOK_EVERY_S: Final = 5.0
OURSELVES: Final = "detector"  # The author of a hold that no person asked for.
WHY: Final = "the records that opened it are lost: the hold on everything stood in for it"
log = structlog.get_logger()


class Folded(Protocol):
    """A partition in our hands: the state behind all records before `offset`."""

    state: State
    offset: int


def orphans(
    holds: Iterable[HoldOpened], incidents: Iterable[Incident], folded: Mapping[int, Folded]
) -> tuple[list[HoldOpened], list[Incident]]:
    """Return what our partitions opened by records that we are behind, that stands, and that our state does not know.

    A fold says the same of the same records, and forgets nothing that it has not ended. What a person holds is theirs
    to end: no source says it again.
    """
    known = {name for ours in folded.values() for name in known_in(ours.state)}
    return (
        [
            hold
            for hold in holds
            if hold.author == OURSELVES and _is_orphan(hold.hold_id, known, folded)
        ],
        [
            incident
            for incident in incidents
            if incident.status != "closed" and _is_orphan(incident.incident_id, known, folded)
        ],
    )


def known_in(state: State) -> Iterator[str]:
    """Yield the holds and incidents that a state has open."""
    yield from state.other_holds
    for name, story in items_of(state.stories):
        yield name
        yield from story.incident.hold_ids


def _is_orphan(name: str, known: set[str], folded: Mapping[int, Folded]) -> bool:
    partition, offset = place_of(name) or (-1, 0)
    return name not in known and partition in folded and offset < folded[partition].offset


def closed(incident: Incident, *, at: datetime) -> Incident:
    """Return an incident of which nobody knows more as one that is over."""
    ended = {"status": "closed", "changed_at": at, "resolved_at": incident.resolved_at or at}
    nothing = {"next_update_at": None, "release_at": None, "draft": None, "hold_ids": ()}
    return incident.model_copy(update=ended | nothing)


async def keep_ending(stream: Stream, views: Views) -> None:
    """End them, for ever."""
    before: set[str] = set()
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        if not views.are_read:
            continue
        holds, incidents = orphans(views.holds, views.incidents.values(), stream.partitions)
        has_looked = not any(hold.reason == LOST for hold in views.holds)
        # The views are a moment behind: of what was just closed they tell the next time.
        over = [one for one in incidents if has_looked and one.incident_id in before]
        before = {one.incident_id for one in incidents}
        try:
            await _end(stream, holds, over)
        except Exception as error:  # Any of aiokafka's: they are ended at another look.
            log.warning("what nobody ends was not ended", why=str(error) or type(error).__name__)


async def _end(stream: Stream, holds: list[HoldOpened], incidents: list[Incident]) -> None:
    """End holds by the log, as a person would; and incidents as the fold says what became of one."""
    for hold in holds:
        log.warning("a hold whose beginning is lost", hold=hold.hold_id, reason=hold.reason)
        over = ReleaseHold(hold_id=hold.hold_id, reason=WHY, author=OURSELVES)
        event_id, partition = f"orphan-{hold.hold_id}", partition_of(hold.hold_id)
        await stream.write(over, event_id=event_id, source=SOURCE, partition=partition)
    for incident in incidents:
        log.warning("an incident whose beginning is lost", incident=incident.incident_id)
        ended = closed(incident, at=stream.clock.now())
        await stream.outbox.emit(ended, f"orphan-{incident.incident_id}")
