"""A consumer that will read no more ends its process, for whoever supervises starts it again.

Found by an hour of faults: uvloop refused a write to a socket that a killed broker had just closed, the
consumer's own task ended by that, and its publisher sat there, healthy and idle, until the hour was over.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from aiokafka import AIOKafkaConsumer
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from ops.embedded.system import System
from schemas.topics import DUE, HOLDS
from services.kit import broker as kafka
from services.kit import members, mends
from services.kit.members import MISSED, Members, instance_of, tasks_of


class Watched:
    """One consumer in a group and one outside, and what was said when the process was to end."""

    def __init__(self, system: System, *, group: str = "") -> None:
        self.ends: list[str] = []
        self.name = f"watched-{uuid.uuid4().hex[:8]}"
        self.group = group or self.name
        self.broker = kafka.new_broker(system.cluster, client_id="test")
        self.grouped = kafka.subscribe(
            self.broker, DUE.name, self._nothing, group=self.group, instance=self.name,
            crash=self._crash,
        )  # fmt: skip
        self.alone = kafka.subscribe(self.broker, HOLDS.name, self._nothing, crash=self._crash)
        self.members = Members(self.broker, system.cluster, crash=self._crash)

    async def _nothing(self, _: Sequence[kafka.Record]) -> None:
        return

    def _crash(self, why: str, error: BaseException | None = None) -> None:
        self.ends.append(f"{why}: {error}")


@pytest.fixture
async def watched(system: System) -> AsyncIterator[Watched]:
    async with running(system) as found:
        yield found


@asynccontextmanager
async def running(system: System, *, group: str = "") -> AsyncIterator[Watched]:
    found = Watched(system, group=group)
    async with kafka.connected(found.broker):
        await found.broker.start()
        async with asyncio.timeout(30):
            while not found.grouped.consumer.assignment():  # noqa: ASYNC110  # aiokafka's.
                await asyncio.sleep(0.05)
        yield found


async def test_whoever_reads_is_left_alone(watched: Watched) -> None:
    for _ in range(MISSED + 1):
        await watched.members.look()
    assert watched.ends == []
    state, ids = (await watched.members._ask([watched.name]))[watched.name]
    assert state == members.STABLE
    assert [name.startswith(f"{watched.name}-{DUE.name}-") for name in ids] == [True]
    assert instance_of(watched.grouped.consumer) == f"{watched.name}-{DUE.name}"


@pytest.mark.parametrize("hands_over", [True, False])
async def test_who_ends_leaves_its_partitions_to_others_at_once(
    hands_over: bool, watched: Watched, system: System
) -> None:
    """A lasting name kept them for six seconds, in which nobody read them: updates waited, at each deployment."""
    async with running(system, group=watched.name) as other:
        if hands_over:
            await other.members.hand_over()
    _, ids = (await watched.members._ask([watched.name]))[watched.name]
    assert {one[: len(watched.name)] for one in ids} == (
        {watched.name} if hands_over else {watched.name, other.name}
    )


async def test_who_is_alone_takes_its_own_partitions_back(system: System) -> None:
    """A group that is empty waits three seconds for others, as brokers are set up."""
    async with running(system) as alone:
        await alone.members.hand_over()
    _, ids = (await alone.members._ask([alone.name]))[alone.name]
    assert len(ids) == 1


async def test_a_group_that_is_left_to_others_is_seen_to_be_empty(watched: Watched) -> None:
    watched.members.others = frozenset({watched.name, "nobody-is-in-it"})
    await watched.members.look()
    assert watched.members.deserted == {"nobody-is-in-it"}


async def test_of_several_groups_each_has_its_own_answer(watched: Watched) -> None:
    """Aiokafka 0.14 reads all but the first of one answer wrong, in an order that changes by process."""
    empty = [f"nobody-{number}" for number in range(4)]
    found = await watched.members._ask([watched.name, *empty])
    assert set(found) == {watched.name, *empty}
    assert (found[watched.name][0], len(found[watched.name][1])) == (members.STABLE, 1)
    assert not any(found[group][1] for group in empty)


async def test_a_consumer_that_is_just_starting_is_not_missed(watched: Watched) -> None:
    """Found by a campaign: a publisher that joined its group slowly, behind its first fence, ended itself."""
    starting = AIOKafkaConsumer(group_id=watched.name, group_instance_id=f"{watched.name}-2")
    watched.members.broker = SimpleNamespace(subscribers=[SimpleNamespace(consumer=starting)])  # type: ignore[assignment]
    await watched.members.look()
    await watched.members.hand_over()
    await starting.stop()
    assert watched.ends == []


@pytest.mark.parametrize("which", ["grouped", "alone"])
async def test_a_consumer_whose_own_task_has_ended_ends_the_process(
    which: str, watched: Watched
) -> None:
    consumer: Any = getattr(watched, which).consumer
    for task in tasks_of(consumer)[-1:]:
        task.cancel()
        await asyncio.wait([task])
    await watched.members.look()
    (why,) = watched.ends
    assert why.startswith("a consumer of ")
    assert "has ended" in why


def test_a_socket_that_was_just_closed_is_a_lost_connection_on_uvloop_too(system: System) -> None:
    """A killed broker's connection is closed some ticks before aiokafka learns of it."""

    async def write_to_a_closed_one(send: Any) -> None:
        host, port = system.kafka.split(":")
        connection = await create_conn(host, int(port))
        connection._writer.transport.abort()
        tick = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(tick.set_result, None)
        await tick
        send(connection, MetadataRequest([]))

    with pytest.raises(KafkaConnectionError, match="the connection to"):
        uvloop.run(write_to_a_closed_one(AIOKafkaConnection.send))
    with pytest.raises(RuntimeError, match="closed"):  # As aiokafka has it.
        uvloop.run(write_to_a_closed_one(mends._send))


async def test_one_that_its_group_knows_no_more_ends_the_process_after_a_while(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = {watched.name: (members.STABLE, frozenset({f"{watched.name}-other-{DUE.name}-1"}))}

    async def without_us(_: Any) -> Any:
        return states

    monkeypatch.setattr(watched.members, "_ask", without_us)
    for _ in range(MISSED - 1):
        await watched.members.look()
    states[watched.name] = ("PreparingRebalance", frozenset())
    await watched.members.look()  # It is on its way.
    assert watched.ends == []
    states[watched.name] = (members.STABLE, frozenset())
    for _ in range(MISSED):
        await watched.members.look()
    (why,) = watched.ends
    assert "is in its group no more" in why


async def test_where_kafka_does_not_answer_nobody_is_missed(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silence(_: Any) -> Any:
        raise TimeoutError

    monkeypatch.setattr(watched.members, "_ask", silence)
    for _ in range(2 * MISSED):
        await watched.members.look()
    assert watched.ends == []
