"""What the ledger proves, decided on values: each way in which a promise can be broken is found."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from schemas.labels import parse_matchers
from services.publisher.proof import LOST, PART, Rule, Send, Span, covering, prove
from tests.builders import AT

MS = timedelta(milliseconds=1)
RULE = Rule(lease=250 * MS)


def a_send(**values: Any) -> Send:
    known: dict[str, Any] = {
        "post_id": "post-1", "account": "social-en", "state": "sent", "done_at": AT + 120 * MS,
        "begun_at": AT + 100 * MS, "fence_begun_at": AT, "attempts": [],
    }  # fmt: skip
    return Send(**(known | values))


def a_span(**values: Any) -> Span:
    known: dict[str, Any] = {
        "hold_id": "hold-1", "matchers": parse_matchers('{line="coast"}'), "opened_at": AT - 1 * MS,
        "released_at": None, "take_back_s": 0,
    }  # fmt: skip
    return Span(**(known | values))


def verdict(send: Send, *spans: Span, rule: Rule = RULE) -> str:
    return prove(send, spans, rule, now=AT + timedelta(hours=1))[0]


def test_a_send_inside_the_lease_without_a_hold_is_proven() -> None:
    assert verdict(a_send()) == "proven"


@pytest.mark.parametrize("age", [250 * MS, 900 * MS, -1 * MS])
def test_a_fence_too_old_or_begun_later_is_found(age: timedelta) -> None:
    assert verdict(a_send(begun_at=AT + age)) == "fence too old"


def test_a_row_without_a_fence_proves_nothing() -> None:
    assert verdict(a_send(fence_begun_at=None)) == "no fence"


def test_a_hold_opened_before_the_fence_is_found_and_one_opened_behind_it_is_right() -> None:
    assert verdict(a_send(), a_span()) == "covered by a hold"
    on_its_way = a_span(opened_at=AT + 1 * MS)
    assert verdict(a_send(state="retracted"), on_its_way) == "proven"
    assert verdict(a_send(), on_its_way) == "left", "it was to be taken back"


def test_a_hold_released_before_the_send_stops_nothing() -> None:
    assert verdict(a_send(), a_span(released_at=AT + 50 * MS)) == "proven"
    assert verdict(a_send(), a_span(released_at=AT + 150 * MS)) == "covered by a hold"


def test_what_lies_within_the_clocks_difference_is_unknown() -> None:
    rule = Rule(lease=250 * MS, skew=20 * MS)
    send = a_send(state="retracted")
    assert verdict(send, a_span(opened_at=AT - 10 * MS), rule=rule) == "unknown"
    assert verdict(send, a_span(opened_at=AT - 30 * MS), rule=rule) == "covered by a hold"
    assert verdict(send, a_span(opened_at=AT + 30 * MS), rule=rule) == "proven"


def test_a_send_that_was_found_again_is_judged_by_its_tries() -> None:
    at = {"at": (AT + 100 * MS).isoformat(), "fence_begun_at": AT.isoformat(), "answer": "unknown"}
    found = {"at": AT.isoformat(), "answer": LOST}
    lost = a_send(begun_at=AT, fence_begun_at=None, attempts=[at, found])
    assert verdict(lost) == "proven"
    assert verdict(lost, a_span()) == "covered by a hold"
    assert verdict(a_send(fence_begun_at=None, attempts=[found])) == "unknown"


def test_each_part_of_a_thread_proves_its_own_fence() -> None:
    early = {"at": AT.isoformat(), "answer": f"{PART}: 1 of 2", "fence_begun_at": AT.isoformat()}
    assert verdict(a_send(attempts=[early])) == "proven"
    late = early | {"at": (AT + 300 * MS).isoformat()}
    assert verdict(a_send(attempts=[late])) == "fence too old"
    refused = late | {"answer": "refused: it came to nothing"}
    assert verdict(a_send(attempts=[refused])) == "proven"


def test_what_a_hold_was_to_take_back_and_stands_is_found() -> None:
    hold = a_span(opened_at=AT + timedelta(seconds=60), take_back_s=120)
    assert verdict(a_send(), hold) == "left"
    assert verdict(a_send(state="retracted"), hold) == "proven"
    assert verdict(a_send(state="retraction_failed"), hold) == "proven", "it says that it did not"
    short = a_span(opened_at=AT + timedelta(seconds=60), take_back_s=30)
    assert verdict(a_send(), short) == "proven"
    brief = a_span(
        opened_at=AT + timedelta(seconds=60),
        released_at=AT + timedelta(seconds=61),
        take_back_s=120,
    )
    assert verdict(a_send(), brief) == "proven", "it was over before it could be done"


def test_a_label_that_the_offer_lacks_is_covered() -> None:
    span = a_span()
    assert covering({"network": "northlink"}, [span]) == [span]
    assert covering({"line": "valley"}, [span]) == []
