"""The whole system on one machine: engines, topics, keys, services, started in order and watched.

One folder holds it: `kafka/ postgres/ logs/ keys.json development-keys.json accounts.yaml state.json`.
A lock on the folder is held while it runs, so that a second start on the same data is told so.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self

import httpx

from ops.embedded import kafka, postgres
from ops.embedded.files import development_keys, make_accounts, make_labels, make_sources
from ops.embedded.nursery import Nursery
from ops.embedded.process import (
    CannotStart,
    Child,
    free_port,
    must_be_free,
    must_have_space,
    wait_until,
)
from schemas.topics import TOPICS
from services.kit.cluster import Cluster
from services.kit.settings import Settings
from services.kit.topics import create_topics, topic_differences

LAYOUT: Final = f"1 kafka-{kafka.VERSION} postgres-{postgres.MAJOR}"
SERVICES: Final = ("detector", "publisher", "scheduler")
READY_S: Final = 60
LEFTOVER_S: Final = 20
RESTART_S: Final = 0.5
SICK_RESTARTS: Final = 20
TLS: Final = httpx.create_ssl_context()  # Else httpx makes one for each client.
Progress = Callable[[str], None]


class System:
    """A running system. Use it as a context manager; `tend` restarts what has crashed."""

    def __init__(
        self,
        data: Path,
        *,
        progress: Progress,
        ports: dict[str, int] | None = None,
        sandbox: bool = True,
        env: dict[str, str] | None = None,
        copies: dict[str, int] | None = None,
        brokers: int = 1,
        broker_options: dict[str, str] | None = None,
        replicas: int = 3,
        nursery: Nursery | None = None,
    ) -> None:
        self.data, self.progress, self.with_sandbox = data.resolve(), progress, sandbox
        self.wanted_ports, self.extra_env = ports or {}, env or {}
        self.copies = copies or {}
        self.brokers = [f"kafka-{number + 1}" if number else "kafka" for number in range(brokers)]
        self.broker_options = broker_options  # Kafka's own, over ours.
        self.replicas = replicas  # Of a Kafka that is not ours; ours has one on each broker.
        self.nursery = nursery  # Ours, if none is given.
        self.launch: dict[str, list[str]] = {}  # Other commands for services: tests break them.
        self.env_of: dict[str, dict[str, str]] = {}  # What one service is told besides.
        self.children: dict[str, Child] = {}
        self.restarts: dict[str, int] = {}
        self.ports: dict[str, int] = {}
        self.keys: dict[str, str] = {}
        self.kafka = os.environ.get("INTERLOCK_KAFKA", "")
        self.database = os.environ.get("INTERLOCK_DATABASE", "")
        self.stopping = False

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(self.data))
            if self.nursery is None:  # Importing takes as long as the engines' start: beside it.
                self.nursery = Nursery(self.data / "logs" / "nursery.log")
                stack.callback(self.nursery.close)
            stack.callback(self.stop)
            self._start()
            self._until_stopped = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._until_stopped.close()

    def _start(self) -> None:
        must_have_space(self.data)
        _check_layout(self.data)
        _end_leftovers(self.data)
        self._choose_ports()
        self._start_engines()
        self.progress("creating topics")
        self._make_topics()
        self.keys = development_keys(self.data)
        if self.with_sandbox:
            self._spawn("sandbox", [sys.executable, "-m", "ops.sandbox.server"])
        make_accounts(self.data, sandbox=self.address("sandbox") if self.with_sandbox else None)
        make_sources(self.data)
        make_labels(self.data)
        for name in self.service_names():
            self._spawn_service(name)
        self._write_state()
        for name in [*self.service_names(), *(["sandbox"] if self.with_sandbox else [])]:
            self.progress(f"waiting for {name}")
            self.wait_ready(name)

    def service_names(self) -> list[str]:
        """Return the services' names, with a number behind those that are not the first of their kind."""
        return [
            name if number == 0 else f"{name}-{number + 1}"
            for name in SERVICES
            for number in range(self.copies.get(name, 1))
        ]

    def _choose_ports(self) -> None:
        before = read_state(self.data).get("ports", {})
        controllers = [_controller(name) for name in self.brokers]
        names = [*self.brokers, *controllers, "postgres", "sandbox", *self.service_names()]
        for name in names:
            if wanted := self.wanted_ports.get(name):
                must_be_free(wanted, what=name)
                self.ports[name] = wanted
            else:
                self.ports[name] = free_port(before.get(name, 0), but=self.ports.values())

    def _start_engines(self) -> None:
        logs = self.data / "logs"
        if not self.database:
            self.progress("starting PostgreSQL")
            self.children["postgres"] = postgres.start(
                self.data / "postgres", port=self.ports["postgres"], log=logs / "postgres.log"
            )
            self.database = postgres.address(self.ports["postgres"])
        if not self.kafka:
            self.progress("starting Kafka")
            for name in self.brokers:
                self._start_broker(name)
            self.kafka = ",".join(f"127.0.0.1:{self.ports[name]}" for name in self.brokers)
        if "postgres" in self.children:
            postgres.wait_ready(self.children["postgres"], port=self.ports["postgres"])
        for name in [name for name in self.brokers if name in self.children]:
            kafka.wait_ready(self.children[name], port=self.ports[name])
        if "kafka" not in self.children and not kafka.answers(self.cluster):
            raise CannotStart(f"no Kafka answers at {self.kafka}: check INTERLOCK_KAFKA")

    def _start_broker(self, name: str) -> None:
        nodes = [
            kafka.Node(number, self.ports[one], self.ports[_controller(one)])
            for number, one in enumerate(self.brokers, start=1)
        ]
        self.children[name] = kafka.start(
            self.data / name,
            nodes[self.brokers.index(name)],
            nodes,
            log=self.data / "logs" / f"{name}.log",
            progress=self.progress,
            options=self.broker_options,
        )

    @property
    def cluster(self) -> Cluster:
        """Return Kafka as this process reaches it."""
        return Settings(kafka=self.kafka).cluster

    def _make_topics(self) -> None:
        ours = "kafka" in self.children
        replicas = len(self.brokers) if ours else self.replicas
        create_topics(self.cluster, TOPICS, replicas=replicas)
        if wrong := topic_differences(self.cluster, TOPICS):
            raise CannotStart("the topics are not as they must be: " + "; ".join(wrong))

    def _spawn_service(self, name: str) -> None:
        serve = [sys.executable, "-m", "services.cli", "serve", name.partition("-")[0]]
        self._spawn(name, self.launch.get(name, serve))

    def _spawn(self, name: str, command: list[str]) -> None:
        env = {
            **os.environ,
            "INTERLOCK_KAFKA": self.kafka,
            "INTERLOCK_DATABASE": self.database,
            "INTERLOCK_KEYS": str(self.data / "keys.json"),
            "INTERLOCK_ACCOUNTS": str(self.data / "accounts.yaml"),
            "INTERLOCK_SOURCES": str(self.data / "sources.yaml"),
            "INTERLOCK_LABELS": str(self.data / "labels.yaml"),
            "INTERLOCK_HOST": "127.0.0.1",
            "INTERLOCK_INSTANCE": name,
            "INTERLOCK_PORT": str(self.ports[name]),
            "SANDBOX_RECORD": str(self.data / "sandbox.jsonl"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
            **self.extra_env,
            **self.env_of.get(name, {}),
        }
        log = self.data / "logs" / f"{name}.log"
        self.children[name] = Child(name, command, log=log, env=env, nursery=self.nursery)

    def address(self, name: str) -> str:
        """Return where a service listens."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def wait_ready(self, name: str) -> None:
        """Wait until a service says that it is ready."""
        wait_until(
            lambda: is_ready(self.address(name)),
            what=name,
            child=self.children[name],
            patience_s=READY_S,
        )

    def replace(self, name: str, command: list[str] | None = None) -> None:
        """Kill a service and start it again, by another command if one is given."""
        self.children[name].stop(signal.SIGKILL)
        self.launch.pop(name, None)
        if command is not None:
            self.launch[name] = command
        self._spawn_service(name)
        self._write_state()
        self.wait_ready(name)

    def client(self, service: str, key: str = "admin") -> httpx.Client:
        """Return a client of a service, with one of the development keys."""
        headers = {"authorization": f"Bearer {self.keys[key]}"}
        return httpx.Client(base_url=self.address(service), headers=headers, timeout=30, verify=TLS)

    def tend(self) -> list[str]:
        """Start again what has crashed; returns the names. Call it now and then."""
        crashed = [n for n, child in self.children.items() if child.ended() is not None]
        for name in crashed:
            if self.stopping:
                return []
            self.restarts[name] = self.restarts.get(name, 0) + 1
            if self.restarts[name] > SICK_RESTARTS:
                self.children[name].must_run()
            time.sleep(RESTART_S)
            self._start_again(name)
        if crashed:
            self._write_state()
        return crashed

    def _start_again(self, name: str) -> None:
        logs = self.data / "logs"
        if name == "postgres":
            self.children[name] = postgres.start(
                self.data / name, port=self.ports[name], log=logs / "postgres.log"
            )
        elif name in self.brokers:
            self._start_broker(name)
        elif name == "sandbox":
            self._spawn(name, [sys.executable, "-m", "ops.sandbox.server"])
        else:
            self._spawn_service(name)

    def stop(self) -> None:
        """Stop services, then PostgreSQL and Kafka."""
        self.stopping = True
        engines = {"postgres": signal.SIGINT} | dict.fromkeys(self.brokers, signal.SIGTERM)
        first = [c for n, c in self.children.items() if n not in engines]
        for child in first:
            child.tell(signal.SIGTERM)
        for child in first:
            child.stop()
        for name in [name for name in engines if name in self.children]:
            self.children[name].tell(engines[name])
        for name in [name for name in engines if name in self.children]:
            self.children[name].stop(engines[name])
        state = read_state(self.data)
        state.pop("pid", None)
        _save(self.data, state | {"children": {}})

    def _write_state(self) -> None:
        addresses = {name: self.address(name) for name in self.children if name in self.ports}
        state = {
            "pid": os.getpid(),
            "ports": self.ports,
            "children": {name: child.pid for name, child in self.children.items()},
            "addresses": {
                n: a for n, a in addresses.items() if not n.startswith(("kafka", "postgres"))
            },
            "kafka": self.kafka,
            "database": self.database,
        }
        _save(self.data, state)


def _controller(broker: str) -> str:
    return broker.replace("kafka", "controller")


@contextlib.contextmanager
def locked(data: Path) -> Iterator[None]:
    """Hold the folder; raises CannotStart where another process does."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = (data / "lock").open("w")
    except OSError as error:
        raise CannotStart(f"{data}: {error.strerror}. Name another folder with --data") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = read_state(data).get("pid", "unknown")
            raise CannotStart(
                f"Interlock runs on {data} already (process {pid}). See it with `interlock "
                "status`, stop it with `interlock down`, or name another folder with --data"
            ) from None
        yield


def is_ready(address: str) -> bool:
    """Say whether a service answers that it is ready."""
    try:
        return httpx.get(f"{address}/readyz", timeout=6, verify=TLS).is_success
    except httpx.HTTPError:
        return False


def read_state(data: Path) -> dict[str, Any]:
    """Return what the last start wrote down; empty where there was none."""
    try:
        found: dict[str, Any] = json.loads((data / "state.json").read_text())
    except (OSError, ValueError):
        return {}
    return found


def _check_layout(data: Path) -> None:
    stamp = data / "layout"
    if not stamp.exists():
        stamp.write_text(LAYOUT + "\n")
    elif (found := stamp.read_text().strip()) != LAYOUT:
        raise CannotStart(
            f"{data} was written by another version (it says '{found}', this is '{LAYOUT}'): start "
            "the Interlock that wrote it, or name another folder with --data"
        )


def _end_leftovers(data: Path) -> None:
    """Wait for children of a start that was killed; the kernel has told them to end."""
    until_s = time.monotonic() + LEFTOVER_S
    left = {n: p for n, p in read_state(data).get("children", {}).items() if _is_ours(p, data)}
    while left and time.monotonic() < until_s:
        time.sleep(0.1)
        left = {n: p for n, p in left.items() if _is_ours(p, data)}
    for pid in left.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _is_ours(pid: int, data: Path) -> bool:
    try:
        return str(data).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _save(data: Path, state: dict[str, Any]) -> None:
    fresh = data / "state.part"
    fresh.write_text(json.dumps(state, indent=2))
    fresh.replace(data / "state.json")
