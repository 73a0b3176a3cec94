"""What happened, for whoever listens: read by pages, streamed, and sent to webhooks, signed and in order."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from schemas.posts import Outcome
from services.scheduler.event_api import MOST_STREAMS
from services.scheduler.event_store import (
    Position,
    add_event,
    add_webhook,
    go_on_from,
    lease_webhook,
    list_webhooks,
    newest,
    position_of,
    read_events,
    record_told,
)
from services.scheduler.outcome_store import record_outcomes
from tests.builders import AT
from tests.journey import Journey, wait_for
from tests.queues import new_queue


class Receiver:
    """A webhook receiver that answers as it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.calls.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def of(self, post_id: str) -> list[str]:
        """Return the types of what was told of a post, in order."""
        told = [json.loads(body) for _, body in self.calls]
        return [one["type"] for one in told if one["data"].get("post_id") == post_id]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def hooked(journey: Journey) -> Iterator[Journey]:
    """Return a journey whose scheduler may call receivers on this machine."""
    system = journey.system
    system.extra_env["INTERLOCK_WEBHOOK_HOSTS"] = "127.0.0.1"
    system.replace("scheduler")
    try:
        yield journey
    finally:
        del system.extra_env["INTERLOCK_WEBHOOK_HOSTS"]
        with system.client("scheduler", "admin") as admin:
            for one in admin.get("/v1/webhooks").json():
                admin.delete(f"/v1/webhooks/{one['webhook_id']}").raise_for_status()
        system.replace("scheduler")


def publish(journey: Journey) -> str:
    (post_id,) = journey.offers(journey.campaign(), {"text": uuid.uuid4().hex})
    journey.wait_state(post_id, "published")
    return post_id


@contextmanager
def listening(
    client: httpx.Client, **headers: str
) -> Iterator[Iterator[tuple[str, dict[str, Any]]]]:
    """Open the stream; yields ids and events."""
    with client.stream("GET", "/v1/events/stream", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")

        def events() -> Iterator[tuple[str, dict[str, Any]]]:
            fields: dict[str, str] = {}
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                fields[name] = value
                if not line and "data" in fields:
                    yield fields["id"], json.loads(fields["data"])
                    fields = {}

        yield events()


def test_events_are_streamed_as_they_come_and_from_where_one_was(journey: Journey) -> None:
    begin = journey.marketing.get("/v1/events", params={"limit": 1000}).json()
    at = begin[-1]["id"] if begin else "0-0"
    post_id = publish(journey)
    journey.hold(f'{{network="{journey.network}"}}')
    with listening(journey.marketing, **{"last-event-id": at}) as events:
        seen: dict[str, str] = {}
        for event_id, event in events:
            if event["data"].get("post_id") == post_id:
                seen[event["type"]] = event_id
            if event["type"] == "hold.opened" and journey.network in event["data"]["matchers"]:
                break
    assert list(seen) == ["offer.published"]
    page = journey.marketing.get(
        "/v1/events", params={"after": at, "type": "offer.published"}
    ).json()
    told = next(one for one in page if one["data"]["post_id"] == post_id)
    assert told["id"] == seen["offer.published"]
    assert told["data"]["account"] == "social-en"
    assert journey.marketing.get("/v1/events", params={"after": "x"}).status_code == 422


def test_a_webhook_is_signed_in_order_and_asked_again_until_it_takes(
    hooked: Journey, receiver: Receiver
) -> None:
    body = {"url": receiver.url, "types": ["offer.published"]}
    with hooked.system.client("scheduler", "admin") as admin:
        made = admin.post("/v1/webhooks", json=body).raise_for_status().json()
        receiver.answers += [500]
        first, second = publish(hooked), publish(hooked)
        wait_for("both", lambda: receiver.of(second))
        headers = [h for h, b in receiver.calls if first in b.decode()]
        assert len(headers) == 2, "refused once, and then taken"
        assert headers[0]["webhook-id"] == headers[1]["webhook-id"]
        assert receiver.of(second) == ["offer.published"]
        told = [json.loads(b)["data"]["post_id"] for _, b in receiver.calls]
        assert told == [first, first, second]
        verify(made["secret"], *receiver.calls[-1])
        view = wait_for("its answer kept", lambda: taken(admin))
        assert ("secret" in view, view["last_answer"]) == (False, "HTTP 204")
        receiver.calls.clear()
        path = f"/v1/webhooks/{made['webhook_id']}"
        admin.post(f"{path}/replay", json={"since": "2020-01-01T00:00:00Z"}).raise_for_status()
        wait_for("the replay", lambda: receiver.of(first) and receiver.of(second))
        admin.delete(path).raise_for_status()
        assert admin.delete(path).status_code == 404
        receiver.calls.clear()
        third = publish(hooked)
        assert receiver.of(third) == []


def taken(admin: httpx.Client) -> dict[str, Any]:
    """Return the one receiver once its last answer is kept, which is behind the answer itself."""
    (view,) = admin.get("/v1/webhooks").json()
    return {} if view["failures"] else view


def verify(secret: str, headers: dict[str, str], body: bytes) -> None:
    """Check a signature as Standard Webhooks 1.0 says, not as our code does."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body.decode()}"
    wanted = base64.b64encode(hmac.digest(key, signed.encode(), hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{wanted}"


def test_a_webhook_leads_to_no_private_address(journey: Journey, receiver: Receiver) -> None:
    receiver.calls.clear()
    with journey.system.client("scheduler", "admin") as admin:
        made = admin.post("/v1/webhooks", json={"url": receiver.url}).json()
        try:
            publish(journey)

            def told() -> str:
                found = {one["webhook_id"]: one for one in admin.get("/v1/webhooks").json()}
                said: str = found[made["webhook_id"]]["last_answer"]
                return said

            assert "which is not public" in wait_for("a refusal", told)
        finally:
            admin.delete(f"/v1/webhooks/{made['webhook_id']}").raise_for_status()
    assert receiver.calls == []


async def test_an_event_that_is_committed_late_is_missed_by_nobody(journey: Journey) -> None:
    queue = await new_queue(journey.system)
    try:
        async with queue.engine.connect() as slow, slow.begin():
            await slow.execute(text("SELECT pg_current_xact_id()"))
            async with queue.engine.begin() as quick:
                await add_event(quick, "hold.opened", {"name": "quick"})
            assert await read_events(queue.engine, Position(), types=[]) == []
            await add_event(slow, "hold.opened", {"name": "slow"})
        found = await read_events(queue.engine, Position(), types=[])
        assert [one["data"]["name"] for one in found] == ["slow", "quick"]
        assert await newest(queue.engine) == position_of(
            f"{found[-1]['xact']}-{found[-1]['number']}"
        )
    finally:
        await queue.close()


async def test_an_outcome_is_one_event_however_often_it_is_read(journey: Journey) -> None:
    queue = await new_queue(journey.system)
    try:
        (post_id,) = await queue.add(-(AT - AT))
        (due,) = await queue.claim()
        outcome = Outcome(
            post_id=post_id, kind="offer", account="social-en", attempt=due.attempt,
            result="published", at=AT,
        )  # fmt: skip
        for _ in range(3):
            await record_outcomes(queue.store.engine, [outcome])
        found = await read_events(queue.engine, Position(), types=["offer.published"])
        assert [one["data"]["post_id"] for one in found] == [post_id]
    finally:
        await queue.close()


def test_so_many_may_listen_and_who_goes_makes_room(journey: Journey) -> None:
    with ExitStack() as listeners:
        for _ in range(MOST_STREAMS):
            listeners.enter_context(listening(journey.marketing))
        refused = journey.marketing.get("/v1/events/stream")
        assert refused.status_code == 503
        assert "page by page" in refused.json()["detail"]
        assert journey.marketing.get("/v1/summary").is_success, "the queue goes on"

    def there_is_room() -> bool:
        with journey.marketing.stream("GET", "/v1/events/stream") as answer:
            return answer.is_success

    wait_for("room", there_is_room)


async def test_a_replay_is_not_undone_by_a_call_that_was_under_way(journey: Journey) -> None:
    queue = await new_queue(journey.system)
    try:
        async with queue.engine.begin() as connection:
            await add_event(connection, "hold.opened", {})
        at = await newest(queue.engine)
        for replayed in (False, True):
            hook_id = uuid.uuid4().hex
            async with queue.engine.begin() as connection:
                await add_webhook(
                    connection, webhook_id=hook_id, url="http://a.example", secret="s", types=[],
                    author="ada", after=Position(),
                )  # fmt: skip
            assert await lease_webhook(queue.engine) is not None
            if replayed:
                async with queue.engine.begin() as connection:
                    await go_on_from(connection, hook_id, Position(1, 1))
            await record_told(
                queue.engine, hook_id, at, begin=Position(), answer="HTTP 204", failures=0,
                wait_s=0, patience_s=1,
            )  # fmt: skip
            async with queue.engine.connect() as connection:
                (found,) = await list_webhooks(connection, hook_id)
            assert found["position"] == str(Position(1, 1) if replayed else at)
    finally:
        await queue.close()
