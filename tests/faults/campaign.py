"""A campaign: races of offers against their disruptions on real engines, while processes are killed and stopped.

Each race is a network of its own: its offers are queued with the scheduler for an instant, and in that
instant its disruption is written. Beside them `calm` offers, which nothing covers, show when offers flow.
What arrived is read from the sandbox network's record, what was acknowledged is known from kafka-python.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import yaml
from kafka import KafkaProducer
from kafka.errors import KafkaError

from ops.demo.judge import Disruption, Labels
from ops.demo.observer import arrivals_of
from ops.embedded.system import System
from services.detector.fold import LOST
from tests.builders import APART, at_once
from tests.faults.acts import SLOW_S, Acts
from tests.faults.host import Host
from tests.faults.room import Room
from tests.faults.seen import CALM, Fault, History

ACCOUNTS: Final = tuple(f"social-{number}" for number in range(4))
COPIES: Final = {"detector": 2, "publisher": 3, "scheduler": 2}
BROKERS: Final = 3
# Mutants of other services than the publisher.
MUTATED: Final = {
    "forgetful": "detector",
    "unreadable_is_nothing": "detector",
    "lost_is_nothing": "detector",
}
# When a race's offers are due, from its instant.
RACERS_S: Final = (0, 0, 0, 0, 0.1, 0.3, 0.5, 1, 2, 4)
THREADS: Final = frozenset({3, 7})  # Of them, by place.
THREAD: Final = ("There", "and back")
AHEAD_S: Final = 1.5  # So far ahead a race is queued.
EVERY_S: Final = 0.7
RACES_AT_ONCE: Final = 24
FAULT_EVERY_S: Final = 5.0  # Of each of two that make them.
CALM_EVERY_S: Final = 0.25
MOST_IN_HAND: Final = 300
COUNT_EVERY_S: Final = 2.0
STANDS_S: Final = (2.0, 15.0)
SETTLE_S: Final = 240.0
STILL_S: Final = 15.0  # Another goes on with a take-back whose publisher was killed after ten.
LINE: Final = "coast"
EVERYTHING: Final = "*"
CANCELLED, ASKED_BACK, TOO_LATE, SERVER_ERROR = 200, 202, 409, 500


class Campaign:
    """One campaign on a system of its own."""

    def __init__(
        self, folder: Path, host: Host, *, seed: int, say: Callable[[str], None], mutant: str = ""
    ) -> None:
        self.folder, self.luck, self.say = folder, random.Random(seed), say
        self.host = host
        self.mutant = mutant  # Of one kind of service: a campaign must be seen to find it.
        self.history = History()
        self._ended, self._at_rest = threading.Event(), threading.Event()
        self._in_hand = 0
        self.room = Room(self._write)

    def run(self, minutes: float) -> History:
        """Race for so long, let everything come to rest, and return what was seen."""
        with (
            self._system() as self.system,
            self._clients(),
            ThreadPoolExecutor(RACES_AT_ONCE + 8) as self.pool,
        ):
            tending = [self.pool.submit(one) for one in (self._tend, self._release)]
            try:
                self._play(minutes)
                self._come_to_rest()
            finally:
                self._ended.set()
                self._at_rest.set()
            for task in tending:
                task.result()
            self.history.over_unread = self.room.over_unread
            self._ask_the_ledger()
            self._read_arrivals()
            self._read_begins()
        return self.history

    def _play(self, minutes: float) -> None:
        hands = (self._calm, self._faults, self._faults, self._count_what_is_in_hand)
        tasks = [self.pool.submit(one) for one in hands]
        until_s, number = time.monotonic() + 60 * minutes, 0
        while time.monotonic() < until_s:
            number += 1
            under_way = len(tasks) - sum(task.done() for task in tasks)
            if under_way < RACES_AT_ONCE and self._in_hand < MOST_IN_HAND:  # Else we are behind.
                tasks.append(self.pool.submit(self._race, f"race-{number}"))
            self._wait(EVERY_S * self.luck.uniform(0.3, 1.7))
            if number % 50 == 0:
                races, faults = len(self.history.disruptions), len(self.history.faults)
                self.say(f"{races} races, {faults} faults, {self._in_hand} offers in hand")
        self._ended.set()
        for task in tasks:
            task.result()

    @contextmanager
    def _system(self) -> Iterator[System]:
        env = {"INTERLOCK_REQUESTS_PER_MINUTE": "0"}
        system = System(self.folder, progress=self.say, copies=COPIES, brokers=BROKERS, env=env)
        system.env_of |= APART  # The third publisher carries both.
        for name in system.service_names():
            system.launch[name] = self._command(name)
        if self.host.can_fill:
            for name in [*system.brokers, "postgres"]:
                self.host.disk(name)
        with system:
            url = system.address("sandbox")
            known = {
                name: {
                    "channel": "mastodon",
                    "url": url,
                    "token": name,
                    "updates": "{}",
                    "languages": ["en"],
                }
                for name in ACCOUNTS
            }
            (system.data / "accounts.yaml").write_text(yaml.safe_dump({"accounts": known}))
            for name in [n for n in system.children if n.startswith("publisher")]:
                system.replace(name, self._command(name))
            with system.client("detector", "admin") as admin:
                admin.put("/v1/policy", json=at_once()).raise_for_status()
            yield system

    def _command(self, name: str) -> list[str]:
        kind = name.partition("-")[0]
        clock = self.host.clock_of(name)
        run = ["services.cli", "serve", kind]
        if self.mutant and kind == MUTATED.get(self.mutant, "publisher"):
            run = ["tests.mutant", self.mutant, kind]
        return ["/usr/bin/env", *clock, sys.executable, "-m", *run]

    @contextmanager
    def _clients(self) -> Iterator[None]:
        self.producer: Any = KafkaProducer(
            bootstrap_servers=self.system.kafka, acks="all", retries=1_000, linger_ms=0
        )
        self.sandbox = httpx.Client(base_url=self.system.address("sandbox"), timeout=30)
        self.acts = Acts(self.system, self.host, self.luck, self.producer, self.sandbox)
        self.room.unread = self.acts.unread
        try:
            yield
        finally:
            self.sandbox.close()
            self.producer.close()

    def _wait(self, seconds: float) -> None:
        self._ended.wait(seconds)

    # What operations and marketing do.

    def _write(self, name: str, network: str, status: str) -> float:
        """Write an event as an operations system does; returns when it was acknowledged."""
        body = {
            "disruption_id": name, "network": network, "status": status,
            "title": f"Trains stand ({name})", "labels": {"line": LINE},
        }  # fmt: skip
        headers = {
            "content-type": "application/json", "ce_specversion": "1.0", "ce_id": uuid.uuid4().hex,
            "ce_source": "/control-room", "ce_type": "interlock.disruption.v1",
        }  # fmt: skip
        while True:
            future = self.producer.send(
                "ops.disruptions", value=json.dumps(body).encode(), key=network.encode(),
                headers=[(key, text.encode()) for key, text in headers.items()],
            )  # fmt: skip
            try:
                future.get(timeout=60)
            except KafkaError:  # It was killed under us: whoever emits tries again.
                time.sleep(0.2)
            else:
                return time.monotonic()

    def _ask(self, method: str, path: str, **values: Any) -> Any:
        """Ask any scheduler that answers; the Idempotency-Key makes a second try harmless."""
        headers = {"idempotency-key": uuid.uuid4().hex}
        while True:
            name = self.luck.choice(("scheduler", "scheduler-2"))
            try:
                with self.system.client(name, "marketing") as client:
                    answer = client.request(method, path, headers=headers, timeout=5, **values)
            except httpx.TransportError:  # It was killed, or stands still.
                time.sleep(0.2)
                continue
            if answer.status_code < SERVER_ERROR:
                return answer.raise_for_status().json()
            time.sleep(0.2)

    def _cancel(self, post_id: str) -> None:
        """Cancel an offer; one that is in hand or out already is left to its own."""
        self.history.asked.add(post_id)
        try:
            with self.system.client("scheduler", "marketing") as client:
                answer = client.post(f"/v1/posts/{post_id}/cancel", timeout=5)
        except httpx.TransportError:  # Nobody knows: it is not counted on.
            return
        if answer.status_code == CANCELLED:
            self.history.cancelled[post_id] = time.monotonic()
        elif answer.status_code not in (ASKED_BACK, TOO_LATE) and answer.status_code < SERVER_ERROR:
            raise AssertionError(f"a cancellation was answered {answer.status_code}: {answer.text}")

    def _queue(self, labels: Labels, due_at: datetime) -> list[str]:
        body = {"name": labels["network"], "labels": labels, "quiet_s": 0,
                "recovery": {"plan": "resume"}, "useful_s": 3_600}  # fmt: skip
        campaign = self._ask("POST", "/v1/campaigns", json=body)["campaign_id"]
        posts = [
            {"account": ACCOUNTS[number % len(ACCOUNTS)], "text": f"Weekend {uuid.uuid4().hex}",
             "due_at": (due_at + timedelta(seconds=after_s)).isoformat(),
             "thread": THREAD if number in THREADS else ()}
            for number, after_s in enumerate(RACERS_S)
        ]  # fmt: skip
        made = self._ask("POST", f"/v1/campaigns/{campaign}/posts", json=posts)
        self.history.offers |= {post["post_id"]: labels for post in made}
        return [post["post_id"] for post in made]

    def _race(self, name: str) -> None:
        labels = {"network": f"net-{name}", "line": LINE}
        due_at = datetime.now(UTC) + timedelta(seconds=AHEAD_S)
        offers = self._queue(labels, due_at)
        left_s = (due_at - datetime.now(UTC)).total_seconds() + self.luck.uniform(-0.2, 0.4)
        time.sleep(max(0.0, left_s))
        at_s = self.room.opened(name, labels["network"])
        self._wait(self.luck.uniform(*STANDS_S))
        self._cancel(self.luck.choice(offers))  # The gate may have sent it back.
        over_s = time.monotonic()
        self.room.over(name)
        self.history.disruptions.append(Disruption(name, labels, at_s, over_s))

    def _calm(self) -> None:
        body = {"name": "calm", "labels": CALM, "useful_s": 3_600,
                "quiet_s": 0, "recovery": {"plan": "resume"}}  # fmt: skip
        campaign = self._ask("POST", "/v1/campaigns", json=body)["campaign_id"]
        while not self._ended.is_set():
            post = {"account": ACCOUNTS[0], "text": f"Calm {uuid.uuid4().hex}",
                    "due_at": datetime.now(UTC).isoformat()}  # fmt: skip
            made = self._ask("POST", f"/v1/campaigns/{campaign}/posts", json=[post])
            self.history.offers[made[0]["post_id"]] = CALM
            self._wait(CALM_EVERY_S)

    # What goes wrong, and who looks after it.

    def _tend(self) -> None:
        while not self._at_rest.wait(0.1):
            self._start_what_ended()

    def _start_what_ended(self) -> None:
        for name in self.system.tend():
            self.system.restarts[name] = 0
            self.history.restarts[name] = self.history.restarts.get(name, 0) + 1

    def _faults(self) -> None:
        self._wait(5)
        while not self._ended.is_set():
            act = self.acts.choose()
            begin = time.monotonic()
            what = act()
            self.history.faults.append(Fault(what, begin, time.monotonic()))
            self._wait(self.luck.expovariate(1 / FAULT_EVERY_S))

    def _count_what_is_in_hand(self) -> None:
        """Count offers that were handed over and have no outcome: no more races than the machine bears."""
        query: dict[str, Any] = {"state": "handed", "fields": "post_id", "limit": 1_000}
        while not self._ended.is_set():
            try:
                with self.system.client("scheduler-2", "viewer") as client:
                    page = client.get("/v1/posts", params=query, timeout=5).raise_for_status()
                self._in_hand = len(page.json()["posts"])
            except httpx.HTTPError:  # It was killed, or stands still.
                pass
            self._wait(COUNT_EVERY_S)

    def _release(self) -> None:
        """Look at the holds on everything, as a person does after events that nobody can read, or that are gone."""
        looked_at: set[str] = set()
        while not self._at_rest.wait(1):
            try:
                with self.system.client("detector", "operations") as client:
                    for hold in client.get("/v1/holds", timeout=5).raise_for_status().json():
                        if hold["network"] != EVERYTHING:
                            continue
                        if hold["reason"] == LOST and hold["hold_id"] not in looked_at:
                            self.room.say_again()
                            looked_at.add(hold["hold_id"])
                        path = f"/v1/holds/{hold['hold_id']}/release"
                        client.post(path, json={"reason": "looked at"}, timeout=5)
            except httpx.HTTPError:
                continue

    # The end.

    def _come_to_rest(self) -> None:
        """Wait until nothing moves: every offer has an end, and none is being taken back, or time is up."""
        self.say("faults have ended; waiting for everything to come to rest")
        still_s = time.monotonic()
        until_s = still_s + SETTLE_S
        while time.monotonic() < until_s:
            before = dict(self.history.outcomes)
            self._read_outcomes()
            if self.history.outcomes != before:
                still_s = time.monotonic()
            if self.history.all_ended() and time.monotonic() - still_s > STILL_S:
                return
            time.sleep(COUNT_EVERY_S)

    def _ask_the_ledger(self) -> None:
        """Let the ledger prove the same sends: a judge from inside, by other evidence."""
        done = subprocess.run(
            [sys.executable, "-m", "services.cli", "audit", "verify", "--since", "1d",
             "--kafka", self.system.kafka, "--database", self.system.database],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        self.history.ledger_says = "it proves each send" if done.returncode == 0 else done.stdout

    def _read_outcomes(self) -> None:
        """Ask the scheduler what became of each offer."""
        with self.system.client("scheduler", "viewer") as client:
            cursor: str | None = "0"
            while cursor:
                query: dict[str, Any] = {
                    "cursor": cursor, "limit": 1000, "fields": "post_id,state"
                }  # fmt: skip
                try:
                    page = client.get("/v1/posts", params=query).raise_for_status().json()
                except httpx.HTTPError:
                    return
                self.history.outcomes |= {p["post_id"]: p["state"] for p in page["posts"]}
                cursor = page["next"]

    def _read_begins(self) -> None:
        """Read of what arrived late when its send began: a busy network may have had it for long."""
        wall_s = time.time() - time.monotonic()
        with self.system.client("publisher", "viewer") as client:
            for late in self.history.verdict().late:
                row = client.get(f"/v1/ledger/{late.offer}").raise_for_status().json()
                if row["begun_at"] is not None:  # Else nobody can say that it began in time.
                    begun = datetime.fromisoformat(row["begun_at"]).timestamp() - wall_s
                    self.history.begun_s[late.offer] = begun

    def _slow_at(self, at_s: float) -> float:
        return SLOW_S if any(begin <= at_s <= end for begin, end in self.acts.slow_times) else 0.0

    def _read_arrivals(self) -> None:
        seen = self.sandbox.get("/sandbox/record").raise_for_status().json()
        self.history.arrivals = arrivals_of(seen, slow_s=self._slow_at)
