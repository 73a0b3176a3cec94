"""Kafka and PostgreSQL for tests: containers where Docker has the images, else the embedded pair."""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

KAFKA_IMAGE = "apache/kafka:4.1.1"
POSTGRES_IMAGE = "postgres:18"


@dataclass(frozen=True, slots=True)
class Engines:
    """Where the engines are; empty addresses: the system starts its own."""

    kind: str
    kafka: str = ""
    database: str = ""


def docker_client() -> Any:
    """Return a Docker client, or None where no engine answers."""
    if not _listens(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")):
        return None  # The SDK would leave a socket open behind its error.
    docker: Any = importlib.import_module("docker")
    client = docker.from_env(timeout=5)
    client.ping()
    return client


def _listens(address: str) -> bool:
    if not address.startswith("unix://"):
        return True
    with socket.socket(socket.AF_UNIX) as s:
        try:
            s.connect(address.removeprefix("unix://"))
        except OSError:
            return False
    return True


def missing_images(client: Any, *names: str) -> list[str]:
    """Return the images that are not there; tests pull nothing."""
    there = {tag for image in client.images.list() for tag in image.tags}
    return [name for name in names if name not in there]


@contextlib.contextmanager
def engines() -> Iterator[Engines]:
    """Run engines for the tests."""
    if os.environ.get("INTERLOCK_TEST_ENGINES") == "embedded":
        yield Engines("embedded, as INTERLOCK_TEST_ENGINES says")
        return
    client = docker_client()
    if client is None:
        yield Engines("embedded: no Docker engine answers")
        return
    if missing := missing_images(client, KAFKA_IMAGE, POSTGRES_IMAGE):
        yield Engines(f"embedded: Docker lacks {', '.join(missing)}")
        return
    from testcontainers.core.config import testcontainers_config

    if missing_images(client, testcontainers_config.ryuk_image):
        testcontainers_config.ryuk_disabled = True  # Nothing is pulled here; we stop what we start.
    client.close()
    with containers() as found:
        yield found


@contextlib.contextmanager
def containers() -> Iterator[Engines]:
    """Run the engines in containers."""
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    from ops.embedded.kafka import answers
    from ops.embedded.process import free_port
    from services.kit.cluster import Cluster

    port = free_port()
    kafka = (
        DockerContainer(KAFKA_IMAGE)
        .with_env("KAFKA_NODE_ID", "1")
        .with_env("KAFKA_PROCESS_ROLES", "broker,controller")
        .with_env("KAFKA_LISTENERS", "PLAINTEXT://:9092,CONTROLLER://:9093")
        .with_env("KAFKA_ADVERTISED_LISTENERS", f"PLAINTEXT://127.0.0.1:{port}")
        .with_env("KAFKA_CONTROLLER_LISTENER_NAMES", "CONTROLLER")
        .with_env(
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"
        )
        .with_env("KAFKA_CONTROLLER_QUORUM_VOTERS", "1@localhost:9093")
        .with_env("KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR", "1")
        .with_env("KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "1")
        .with_env("KAFKA_TRANSACTION_STATE_LOG_MIN_ISR", "1")
        .with_env("KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS", "0")
        .with_bind_ports(9092, port)
    )
    postgres = (
        DockerContainer(POSTGRES_IMAGE)
        .with_env("POSTGRES_PASSWORD", "tests")
        .with_exposed_ports(5432)
        .waiting_for(LogMessageWaitStrategy("database system is ready to accept connections"))
    )
    with kafka, postgres:
        _wait(lambda: answers(Cluster(f"127.0.0.1:{port}")))
        at = postgres.get_exposed_port(5432)
        database = f"postgresql://postgres:tests@127.0.0.1:{at}/postgres"
        yield Engines("containers", f"127.0.0.1:{port}", database)


def _wait(ready: Any) -> None:
    import time

    until_s = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < until_s, "the container did not become ready"
        time.sleep(0.2)
