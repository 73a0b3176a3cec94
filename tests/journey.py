"""What a test does and sees from outside: events, offers, the sandbox's record, outcomes."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self, TypeVar

import httpx
from kafka import KafkaConsumer, KafkaProducer

from ops.embedded.system import TLS, System
from schemas import envelope
from schemas.base import Record
from schemas.posts import DuePost
from schemas.topics import DUE, key_of
from tests.builders import a_post

PATIENCE_S: Final = 30.0
LEASE_S: Final = 0.25
T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T], *, patience_s: float = PATIENCE_S) -> T:
    """Look until something is there; returns it."""
    until_s = time.monotonic() + patience_s
    while not (found := look()):
        assert time.monotonic() < until_s, f"{what}: not within {patience_s:.0f} s"
        time.sleep(0.02)
    return found


class Journey:
    """One test's way through the system, on a network that is its own."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.network = f"net-{uuid.uuid4().hex[:12]}"
        self._stack = ExitStack()
        self._broken: set[str] = set()
        self._seen_before = 0
        self.began_at = datetime.now(UTC)

    def __enter__(self) -> Self:
        enter = self._stack.enter_context
        self.emitter = enter(self.system.client("detector", "emitter"))
        self.operations = enter(self.system.client("detector", "operations"))
        self.marketing = enter(self.system.client("scheduler", "marketing"))
        self.approver = enter(self.system.client("scheduler", "approver"))
        self.publisher = enter(self.system.client("publisher", "viewer"))
        self.sandbox = enter(
            httpx.Client(base_url=self.system.address("sandbox"), timeout=30, verify=TLS)
        )
        self._producer: Any = KafkaProducer(**self.system.cluster.options(), acks="all")
        self._stack.callback(self._producer.close)
        self._seen_before = len(self._record())
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.faults()
            for name in sorted(
                self._broken
            ):  # The detector first: a publisher is not ready without.
                self.system.replace(name)
            for hold in self.holds():
                self.release(hold["hold_id"])
        finally:
            self._stack.close()

    def break_service(self, name: str, mutant: str) -> None:
        """Run a service with one mechanism switched off, see tests/mutant.py, until the test ends."""
        self._broken.add(name)
        command = [sys.executable, "-m", "tests.mutant", mutant, name]
        self.system.replace(name, command)

    def event(self, disruption: str = "d-1", status: str = "opened", **data: Any) -> float:
        """Report a disruption; returns when it was acknowledged (CLOCK_MONOTONIC)."""
        self.emit(
            {
                "disruption_id": disruption,
                "network": self.network,
                "status": status,
                "title": f"Trains are standing ({self.network})",
                "labels": {"line": "coast"},
            }
            | data
        ).raise_for_status()
        return time.monotonic()

    def emit(self, data: dict[str, Any], **changed: str) -> httpx.Response:
        headers = {
            "content-type": "application/json",
            "ce-specversion": "1.0",
            "ce-id": uuid.uuid4().hex,
            "ce-source": "/control-room",
            "ce-type": "interlock.disruption.v1",
        }
        return self.emitter.post("/v1/events", json=data, headers=headers | changed)

    def holds(self) -> list[dict[str, Any]]:
        """Return the open holds of this test's network, and those on everything."""
        found: list[dict[str, Any]] = self.operations.get("/v1/holds").raise_for_status().json()
        return [hold for hold in found if hold["network"] in (self.network, "*")]

    def hold(self, matchers: str) -> str:
        body = {"network": self.network, "matchers": matchers, "reason": "test"}
        answer = self.operations.post("/v1/holds", json=body).raise_for_status().json()
        hold_id: str = answer["id"]
        self.in_force(hold_id)
        return hold_id

    def in_force(self, hold_id: str) -> None:
        wait_for("the hold in force", lambda: hold_id in self.gate()["open_holds"])

    def gate(self) -> dict[str, Any]:
        found: dict[str, Any] = self.publisher.get("/v1/gate").raise_for_status().json()
        return found

    def release(self, hold_id: str) -> None:
        answer = self.operations.post(f"/v1/holds/{hold_id}/release", json={"reason": "test"})
        assert answer.status_code in (202, 409), answer.text
        wait_for("the release", lambda: hold_id not in self.gate()["open_holds"])

    def hand_over(self, count: int, *, account: str = "social-en", **values: Any) -> list[str]:
        """Write due offers for the publisher, as the scheduler does; returns their ids."""
        now = datetime.now(UTC)
        labels = {"network": self.network, "line": "coast"}
        known = {"labels": labels, "due_at": now, "latest_at": now + timedelta(hours=1)}
        ids = []
        for _ in range(count):
            post_id = f"post-{uuid.uuid4().hex}"
            post = a_post(
                **(known | {"post_id": post_id, "text": post_id, "account": account} | values)
            )
            self.produce(DUE.name, DuePost(post=post, attempt=1))
            ids.append(post_id)
        self._producer.flush()
        return ids

    def produce(self, topic: str, record: Record, *, value: bytes | None = None) -> None:
        headers = envelope.write_headers(record, event_id=uuid.uuid4().hex, source="/test")
        self._producer.send(
            topic,
            value=value if value is not None else envelope.write_value(record),
            key=(key_of(record) or "test").encode(),
            headers=[(name, text.encode()) for name, text in headers.items()],
        )
        self._producer.flush()

    def campaign(self, **values: Any) -> str:
        body = {"name": "test", "labels": {"network": self.network}, "quiet_s": 0} | values
        made = self.marketing.post("/v1/campaigns", json=body).raise_for_status().json()
        campaign_id: str = made["campaign_id"]
        return campaign_id

    def offers(self, campaign_id: str, *posts: dict[str, Any]) -> list[str]:
        now = datetime.now(UTC).isoformat()
        bodies = [
            {"account": "social-en", "text": uuid.uuid4().hex, "due_at": now} | post
            for post in posts
        ]
        answer = self.marketing.post(f"/v1/campaigns/{campaign_id}/posts", json=bodies)
        return [post["post_id"] for post in answer.raise_for_status().json()]

    def state(self, post_id: str) -> str:
        found: str = self.marketing.get(f"/v1/posts/{post_id}").raise_for_status().json()["state"]
        return found

    def wait_state(self, post_id: str, state: str) -> None:
        wait_for(
            f"{post_id} {state}, is {self.state(post_id)}", lambda: self.state(post_id) == state
        )

    def ledger(self, post_id: str) -> dict[str, Any] | None:
        answer = self.publisher.get(f"/v1/ledger/{post_id}")
        found: dict[str, Any] | None = answer.json() if answer.is_success else None
        return found

    def faults(self, **faults: Any) -> None:
        self.sandbox.put("/sandbox/faults", json=faults).raise_for_status()

    def _record(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.sandbox.get("/sandbox/record").raise_for_status().json()
        return found

    def seen(
        self, what: str = "published", *, among: list[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return what the sandbox has seen since the test began."""
        since = self._record()[self._seen_before :]
        return [s for s in since if s["what"] == what and (among is None or s["key"] in among)]

    def standing(self, among: list[str]) -> set[str]:
        """Return the posts that were published and not deleted."""
        gone = {s["id"] for s in self.seen("deleted")}
        return {s["key"] for s in self.seen(among=among) if s["id"] not in gone}

    def updates(self) -> list[dict[str, Any]]:
        """Return the status updates that the sandbox has seen and that name our network."""
        return [s for s in self.seen() if s["key"].startswith("upd-") and self.network in s["text"]]

    def read_all(self, topic: str) -> list[Any]:
        """Read a topic from its beginning to its end."""
        consumer: Any = KafkaConsumer(
            topic,
            **self.system.cluster.options(),
            auto_offset_reset="earliest",
            consumer_timeout_ms=1_500,
        )
        try:
            return list(consumer)
        finally:
            consumer.close()
