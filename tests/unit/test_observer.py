"""The demo's judge, on made evenings, good and bad: what it cannot find, it cannot vouch for."""

from __future__ import annotations

from typing import Any

from ops.demo.observer import Covering, Verdict, judge_evening

COAST, VALLEY = {"line": "coast"}, {"line": "valley"}
STANDING = [Covering("coast", 10.0, 20.0)]


def seen(key: str, at_s: float, what: str = "published", number: int = 1) -> dict[str, Any]:
    return {"what": what, "id": f"{key}-{number}", "key": key, "at_s": at_s}


def outcome(post_id: str, result: str) -> dict[str, Any]:
    return {"post_id": post_id, "kind": "offer", "result": result}


def judged(
    record: list[dict[str, Any]], *results: str, labels: dict[str, str] = COAST, state: str = ""
) -> Verdict:
    return judge_evening(
        queued={"p": labels},
        states={"p": state or (results[-1] if results else "queued")},
        outcomes=[outcome("p", result) for result in results],
        record=record,
        coverings=STANDING,
        lease_s=0.25,
    )


def test_an_offer_before_the_event_within_the_lease_or_after_the_end_is_in_time() -> None:
    for at_s in (9.0, 10.2, 20.1):
        assert judged([seen("p", at_s)], "published").held


def test_a_covered_offer_after_the_lease_is_late() -> None:
    assert judged([seen("p", 10.26)], "published").late == ["p"]
    assert judged([seen("p", 15)], "published", labels={}).late == ["p"]
    assert judged([seen("p", 15)], "published", labels=VALLEY).held


def test_a_second_publication_is_found() -> None:
    assert judged([seen("p", 1), seen("p", 2, number=2)], "published").doubled == ["p"]


def test_an_offer_that_nobody_speaks_of_is_unaccounted_for() -> None:
    assert judged([]).unaccounted == ["p"]
    assert judged([], "published").unaccounted == ["p"]
    assert judged([seen("p", 1)], "published", state="handed").unaccounted == ["p"]
    assert judged([seen("p", 1)], state="review").counts["review"] == 1


def test_a_retraction_that_did_not_happen_is_found() -> None:
    assert judged([seen("p", 1)], "published", "retracted").left_standing == ["p"]
    assert judged([seen("p", 1), seen("p", 2, "deleted")], "published", "retracted").held
