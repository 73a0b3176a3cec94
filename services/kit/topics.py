"""The topics of a cluster as they must be: made, looked at, and refused where they are not.

All of it with kafka-python's admin client, which blocks.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from contextlib import closing
from typing import Any, Final, Protocol

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError

from services.kit.cluster import Cluster

REQUEST_MS: Final = 30_000
FIRST_ANSWER_MS: Final = 10_000
TRIES: Final = 4
TRY_AGAIN_S: Final = 0.5
TRY_FOR_S: Final = 5.0  # Where none answers, that is soon said.


class TopicSpec(Protocol):
    """What a topic must be like; `config` has Kafka's own option names."""

    @property
    def name(self) -> str: ...
    @property
    def partitions(self) -> int: ...
    @property
    def config(self) -> dict[str, str]: ...


def create_topics(cluster: Cluster, topics: Iterable[TopicSpec], *, replicas: int) -> list[str]:
    """Create the topics that are not there; returns their names. Blocks."""
    with closing(new_admin(cluster)) as admin:
        there = set(admin.list_topics())
        missing = [topic for topic in topics if topic.name not in there]
        options = {
            topic.name: {
                "num_partitions": topic.partitions,
                "replication_factor": replicas,
                "configs": topic.config
                | {"min.insync.replicas": str(max(1, replicas - 1))}
                | {"unclean.leader.election.enable": "false"},
            }
            for topic in missing
        }
        if options:
            admin.create_topics(options, wait_for_metadata=True)
        return [topic.name for topic in missing]


def topic_differences(cluster: Cluster, topics: Iterable[TopicSpec]) -> list[str]:
    """Return, in words, where the cluster's topics are not as they must be. Blocks."""
    wanted = list(topics)
    with closing(new_admin(cluster)) as admin:
        there = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics()}
        found = [topic for topic in wanted if topic.name in there]
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in found]
        answer = admin.describe_configs(resources, config_filter="all") if resources else {}
        configs = {name: values for kind in answer.values() for name, values in kind.items()}
    wrong = [
        f"{topic.name} is missing, or this user may not see it"
        for topic in wanted
        if topic.name not in there
    ]
    for topic in found:
        if there[topic.name] != topic.partitions:
            wrong.append(f"{topic.name} has {there[topic.name]} partitions, not {topic.partitions}")
        if not (options := configs[topic.name]):
            wrong.append(f"{topic.name}: this user may not see how it is set")
            continue
        for option, value in topic.config.items():
            is_now = options[option]["value"]
            if is_now != value:
                wrong.append(f"{topic.name}: {option} is {is_now}, not {value}")
    return wrong


async def must_match(cluster: Cluster, topics: Iterable[TopicSpec]) -> None:
    """Raise when the cluster's topics are not as they must be: then nothing is safe to start.

    One of several brokers that was just lost is asked as any other, until Kafka has seen it: then another is asked.
    """
    wanted, wrong, began_s = list(topics), list[str](), time.monotonic()
    for tries_left in reversed(range(TRIES)):
        try:
            wrong = await asyncio.to_thread(topic_differences, cluster, wanted)
            break
        except KafkaError as error:
            if not tries_left or time.monotonic() - began_s > TRY_FOR_S:
                raise RuntimeError(
                    f"Kafka at {cluster.servers} does not answer, or does not let us in as "
                    f"{cluster.user or 'nobody'}: {error}"
                ) from None
            await asyncio.sleep(TRY_AGAIN_S)
    if wrong:
        raise RuntimeError(f"topics: {'; '.join(wrong)}. See `interlock topics check`.")


def new_admin(cluster: Cluster, *, timeout_ms: int = REQUEST_MS) -> Any:
    """Return kafka-python's admin client. Blocks."""
    return KafkaAdminClient(
        **cluster.options(),
        request_timeout_ms=timeout_ms,
        bootstrap_timeout_ms=min(timeout_ms, FIRST_ANSWER_MS),
    )


logging.getLogger("kafka").setLevel(logging.ERROR)
