"""Holds that nobody ends: what opened them is lost, and the state goes back to before that.

A detector that ended had said more than its last snapshot knows. Whoever takes its partition over folds those records
again, to the same holds; unless Kafka has deleted them meanwhile. Then everything is held until a person has looked,
and that hold stands in for those whose beginning is gone: nobody else would know of their end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Protocol

import structlog

from schemas.disruptions import ReleaseHold
from schemas.holds import HoldOpened
from services.detector.state import State, partition_of, place_of
from services.detector.store import SOURCE
from services.detector.stream import Stream
from services.detector.views import Views

LOOK_EVERY_S: Final = 5.0
WHY: Final = "the records that opened it are lost: the hold on everything stood in for it"
log = structlog.get_logger()


class Folded(Protocol):
    """A partition in our hands: the state behind all records before `offset`."""

    state: State
    offset: int


def orphans(holds: Iterable[HoldOpened], folded: Mapping[int, Folded]) -> list[HoldOpened]:
    """Return the open holds of our partitions that were opened by what we are behind, and that our state does not know.

    A fold says the same of the same records, and forgets no hold that it has not released.
    """
    known = {hold_id for ours in folded.values() for hold_id in _known(ours.state)}
    return [hold for hold in holds if hold.hold_id not in known and _is_behind(hold, folded)]


def _known(state: State) -> Iterator[str]:
    yield from state.other_holds
    for story in state.stories.values():
        yield from story.incident.hold_ids


def _is_behind(hold: HoldOpened, folded: Mapping[int, Folded]) -> bool:
    partition, offset = place_of(hold.hold_id) or (-1, 0)
    return partition in folded and offset < folded[partition].offset


async def keep_releasing(stream: Stream, views: Views) -> None:
    """Release them, for ever; by the log, as a person would."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        for hold in orphans(views.holds, stream.partitions) if views.are_read else ():
            log.warning("a hold whose beginning is lost", hold=hold.hold_id, reason=hold.reason)
            over = ReleaseHold(hold_id=hold.hold_id, reason=WHY, author="detector")
            event_id, partition = f"orphan-{hold.hold_id}", partition_of(hold.hold_id)
            await stream.write(over, event_id=event_id, source=SOURCE, partition=partition)
