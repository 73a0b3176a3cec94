"""Consumers that no longer read, and do not say so: the process ends, and whoever supervises starts it again.

An hour of faults showed how with aiokafka 0.14: a task of the consumer's ends by an error that is none of
Kafka's, or all brokers it knows are gone while others live, and its group goes on without it for good.
FastStream waits in both. So the consumer's tasks are looked at, and the group is asked, through a client
of its own: are we in it?
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import Any, Final

import structlog
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from faststream.kafka import KafkaBroker

from services.kit.broker import Crash
from services.kit.cluster import Cluster

LOOK_S: Final = 15.0
ANSWER_S: Final = 10.0
GOODBYE_S: Final = 2.0
MISSED: Final = 4  # Looks at which a stable group did not know us: a minute.
STABLE: Final = "Stable"
States = dict[str, tuple[str, frozenset[str]]]  # By group: its state, its members' ids.
log = structlog.get_logger()


class Members:
    """Looks after the consumers of one process, and whether groups that it leaves to `others` have members."""

    def __init__(self, broker: KafkaBroker, cluster: Cluster, *, crash: Crash) -> None:
        self.broker, self.cluster, self.crash = broker, cluster, crash
        self.others, self.deserted = frozenset[str](), frozenset[str]()
        self._missed: dict[str, int] = {}

    async def keep_looking(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Look once; a consumer that will read no more ends the process."""
        consumers = self._consumers()
        for consumer in consumers:
            for task in tasks_of(consumer):
                if task.done():
                    error = None if task.cancelled() else task.exception()
                    self.crash(f"a consumer of {_topics(consumer)} has ended", error)
        await self._look_at_groups([one for one in consumers if instance_of(one)])

    async def _look_at_groups(self, consumers: Collection[Any]) -> None:
        groups = self.others | {one._group_id for one in consumers}  # noqa: SLF001
        if (states := await self._try_to_ask(groups, ANSWER_S)) is None:
            return  # Nobody knows: that is not missed.
        self.deserted = frozenset(g for g in self.others if not states.get(g, ("", ()))[1])
        for consumer in consumers:
            instance = instance_of(consumer)
            state, members = states.get(consumer._group_id, ("", frozenset()))  # noqa: SLF001
            known = state != STABLE or any(name.startswith(f"{instance}-") for name in members)
            self._missed[instance] = 0 if known else self._missed.get(instance, 0) + 1
            if self._missed[instance] >= MISSED:
                self.crash(f"{instance} is in its group no more", None)

    async def hand_over(self) -> None:
        """Let a consumer that is about to stop leave its group where others go on; alone it takes its own back.

        A lasting name keeps its partitions for a session, in which nobody reads them: right for a crash, not for an end.
        """
        named = [one for one in self._consumers() if instance_of(one)]
        states = await self._try_to_ask({one._group_id for one in named}, GOODBYE_S)  # noqa: SLF001
        for consumer in named:
            _, members = (states or {}).get(consumer._group_id, ("", frozenset()))  # noqa: SLF001
            if any(not name.startswith(f"{instance_of(consumer)}-") for name in members):
                consumer._coordinator._group_instance_id = None  # noqa: SLF001  # aiokafka leaves by that.

    def _consumers(self) -> list[Any]:
        known = [c for s in self.broker.subscribers if (c := getattr(s, "consumer", None))]
        return [c for c in known if c._coordinator is not None]  # noqa: SLF001  # It has started.

    async def _try_to_ask(self, groups: Iterable[str], patience_s: float) -> States | None:
        try:
            async with asyncio.timeout(patience_s):
                return await self._ask(groups)
        except (KafkaError, TimeoutError, OSError) as error:
            log.warning("groups were not asked", why=str(error) or type(error).__name__)
            return None

    async def _ask(self, groups: Iterable[str]) -> States:
        """Return each group's state, and the ids of its members, which begin with their instances."""
        admin = AIOKafkaAdminClient(**self.cluster.options())
        await admin.start()
        try:
            # One by one: aiokafka 0.14 reads the answer of version 3 as one of 2, wrong from the second group on.
            answers: list[Any] = [await admin.describe_consumer_groups([g]) for g in sorted(groups)]
        finally:
            await admin.close()
        return {
            group: (state, frozenset(member[0] for member in members))
            for (answer,) in answers
            for _, group, state, _, _, members, *_ in answer.groups
        }


def tasks_of(consumer: Any) -> list[asyncio.Task[Any]]:
    """Return the tasks of aiokafka's without which a consumer reads nothing; they end when it is stopped."""
    found = (
        getattr(consumer._coordinator, "_coordination_task", None),  # noqa: SLF001
        consumer._client._sync_task,  # noqa: SLF001  # Who leads what.
        consumer._fetcher._fetch_task,  # noqa: SLF001
    )
    return [task for task in found if task is not None]


def instance_of(consumer: Any) -> str:
    """Return the lasting name under which its group knows a consumer; empty where it has none."""
    return consumer._group_instance_id or ""  # noqa: SLF001


def _topics(consumer: Any) -> str:
    return ", ".join(sorted(consumer.subscription()))
