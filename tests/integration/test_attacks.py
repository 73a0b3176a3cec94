"""What somebody with bad intentions sends, at the doors of a running system: refused, and nothing falls.

Who may ask what is in `test_routes.py`, forged and broken formats in `test_ingest_broken.py`, addresses in
`test_fetch.py`, `test_pictures.py` and `test_events.py`.
"""

from __future__ import annotations

import gzip
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from ops.embedded.system import SERVICES, System
from tests.journey import Journey, wait_for

DEEP = 100_000
BOMB_BYTES = 200 * 1_048_576
MIB = 1_048_576
SLOW_CONNECTIONS = 200
DOORS = (
    ("detector", "/v1/events"),
    ("detector", "/v1/events/pagerduty"),
    ("detector", "/v1/events/alertmanager"),
    ("detector", "/api/v2/alerts"),
    ("detector", "/v1/holds"),
    ("scheduler", "/v1/campaigns"),
    ("publisher", "/v1/take-back/dry-run"),
)
BODIES = {
    "deep lists": (b"[" * DEEP, {}),
    "deep objects": (b'{"a":' * DEEP, {}),
    "a bomb of gzip": (gzip.compress(bytes(BOMB_BYTES)), {"content-encoding": "gzip"}),
    "a number of a million digits": (b"1" * (MIB - 1), {}),
    "surrogates": (b'{"title":"\\ud800"}', {}),
    "no UTF-8": (b"\xff\xfe{}", {}),
    "many keys": (b"{" + b",".join(b'"k%d":1' % n for n in range(80_000)) + b"}", {}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def all_stand(system: System) -> Iterator[None]:
    """After each attack every service answers, and none was started again."""
    before = {name: system.children[name].pid for name in SERVICES}
    yield
    for name in SERVICES:
        assert httpx.get(f"{system.address(name)}/readyz", timeout=20).is_success
        assert system.children[name].ended() is None
        assert system.children[name].pid == before[name]


@pytest.mark.parametrize("what", BODIES)
@pytest.mark.parametrize(("service", "path"), DOORS)
def test_a_body_that_is_made_to_hurt_is_refused(
    system: System, service: str, path: str, what: str
) -> None:
    body, headers = BODIES[what]
    known = {"content-type": "application/json", "idempotency-key": "attack"}
    with system.client(service) as client:
        answer = client.post(path, content=body, headers=known | headers)
    assert 400 <= answer.status_code < 500, answer.text[:300]


@pytest.mark.parametrize("service", SERVICES)
def test_headers_without_end_are_refused(system: System, service: str) -> None:
    with system.client(service) as client:
        try:
            answer = client.get("/healthz", headers={"x-long": "x" * MIB})
        except httpx.TransportError:
            return  # It hung up.
    assert answer.status_code in (400, 431)


@pytest.mark.parametrize("service", SERVICES)
def test_who_sends_slowly_keeps_nobody_waiting(system: System, service: str) -> None:
    head = (
        "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {system.keys['admin']}\r\ncontent-length: 1000\r\n\r\n"
    )
    with ExitStack() as stack:
        for _ in range(SLOW_CONNECTIONS):
            where = ("127.0.0.1", system.ports[service])
            slow = stack.enter_context(socket.create_connection(where, timeout=20))
            slow.sendall(head.encode() + b"{")
        with system.client(service) as client:
            assert client.get("/healthz").is_success


def test_a_title_is_words_and_never_a_template(journey: Journey) -> None:
    evil = "{{ 7*7 }}{% for x in range(9999999) %}{{ self.__init__.__globals__ }}{% endfor %}"
    journey.event(title=f"{evil} ({journey.network})")
    wait_for("the update", journey.updates)
    texts = [one["text"].replace(journey.network, "") for one in journey.updates()]  # It is random.
    assert all(evil in text and "49" not in text for text in texts)
    journey.event(status="resolved", title=f"{evil} ({journey.network})")


def test_a_matcher_that_would_hang_other_engines_is_judged_like_any(journey: Journey) -> None:
    """RE2 is linear: `(a+)+$` against many a's takes a backtracking engine longer than the universe has."""
    journey.hold(f'{{network="{journey.network}",line=~"(a|a?)+(a+)+b"}}')
    (held,) = journey.hand_over(1, labels={"network": journey.network, "line": "a" * 250 + "b"})
    (free,) = journey.hand_over(1, labels={"network": journey.network, "line": "a" * 250})
    wait_for("the offer", lambda: journey.seen(among=[free]))
    assert not journey.seen(among=[held])


def test_a_label_that_looks_the_same_is_held_the_same(journey: Journey) -> None:
    journey.hold(f'{{network="{journey.network}",line="Zürich"}}')
    campaign = journey.campaign()
    for disguised in ("Zu\u0308rich", "Zürich\u200b", "\uff3aürich"):
        (offer,) = journey.offers(campaign, {"labels": {"line": disguised}})
        journey.wait_state(offer, "held")
