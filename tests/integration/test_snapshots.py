"""The detector's state in Kafka: what is written is what is read, also on a very bad day."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiokafka.errors import MessageSizeTooLargeError
from faststream.kafka import KafkaBroker

from ops.embedded.system import System
from services.detector.fold import fold
from services.detector.state import State
from services.detector.store import Texts, read_snapshots, write_snapshot
from services.kit import broker as kafka
from services.kit.cluster import Cluster
from tests.builders import AT, a_disruption, a_policy, an_entry

UNUSED_PARTITION = 77
MANY = 3_000


@pytest.fixture
async def broker(system: System) -> AsyncIterator[KafkaBroker]:
    made = kafka.new_broker(Cluster(system.kafka), client_id="test")
    await made.start()
    yield made
    await made.stop()


def a_state(incidents: int, *, detail: str = "") -> State:
    state = State(policy=a_policy())
    for number in range(incidents):
        event = a_disruption(disruption_id=f"d-{number}", detail=detail)
        state = fold(state, an_entry(event, offset=number)).state
    return state


async def test_a_state_of_three_thousand_incidents_comes_back_as_it_was(
    system: System, broker: KafkaBroker
) -> None:
    """A snapshot above one segment's size was refused, and the detector ended itself for ever."""
    state = a_state(MANY)
    await write_snapshot(
        broker, partition=UNUSED_PARTITION, offset=MANY, state=state, texts=Texts(), at=AT
    )
    await write_snapshot(
        broker, partition=UNUSED_PARTITION, offset=7, state=State(), texts=Texts(), at=AT
    )
    found = await read_snapshots(Cluster(system.kafka), {UNUSED_PARTITION})
    assert found[UNUSED_PARTITION].offset == MANY, "an older one that was written late has won"
    assert found[UNUSED_PARTITION].state == state


async def test_a_state_that_is_too_large_says_so(broker: KafkaBroker) -> None:
    state = a_state(1_000, detail="x" * 10_000)
    with pytest.raises(MessageSizeTooLargeError):
        await write_snapshot(
            broker, partition=UNUSED_PARTITION + 1, offset=1, state=state, texts=Texts(), at=AT
        )
