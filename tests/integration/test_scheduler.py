"""What marketing does by REST, and what the queue makes of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.journey import Journey, wait_for


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def test_an_offer_goes_out_when_it_is_due(journey: Journey) -> None:
    campaign = journey.campaign(labels={"network": journey.network, "line": "coast"})
    now, later = journey.offers(campaign, {}, {"due_at": soon(3600)})
    journey.wait_state(now, "published")
    assert journey.state(later) == "queued"
    post = journey.marketing.get(f"/v1/posts/{now}").json()
    assert post["labels"] == {"network": journey.network, "line": "coast"}
    assert post["url"].startswith("/#")
    counts = journey.marketing.get(f"/v1/campaigns/{campaign}").json()["counts"]
    assert counts == {"published": 1, "queued": 1}


def test_after_a_hold_stale_offers_expire_past_due_ones_are_reviewed_and_the_rest_go_on(
    journey: Journey,
) -> None:
    hold_id = journey.hold(f'{{network="{journey.network}"}}')
    wait_for("the hold", lambda: hold_id in journey.publisher.get("/v1/gate").json()["open_holds"])
    campaign = journey.campaign()
    (later,) = journey.offers(campaign, {"due_at": soon(4)})
    journey.wait_state(later, "held")  # The queue has heard of the hold.
    stale, due = journey.offers(campaign, {"due_at": soon(-60), "latest_at": soon(-1)}, {})
    for post_id in (stale, due):
        journey.wait_state(post_id, "held")
    journey.release(hold_id)
    journey.wait_state(due, "review")
    journey.wait_state(stale, "expired")
    journey.wait_state(later, "published")
    assert journey.standing([stale, due, later]) == {later}


def test_a_hold_writes_no_row_of_a_post(journey: Journey) -> None:
    campaign = journey.campaign()
    (post_id,) = journey.offers(campaign, {"due_at": soon(3600)})
    hold_id = journey.hold(f'{{network="{journey.network}"}}')
    journey.wait_state(post_id, "held")
    assert journey.marketing.get(f"/v1/posts/{post_id}").json()["attempt"] == 0
    journey.release(hold_id)
    journey.wait_state(post_id, "queued")


def test_a_lane_made_under_a_hold_is_held(journey: Journey) -> None:
    hold_id = journey.hold(f'{{network="{journey.network}",line="coast"}}')
    campaign = journey.campaign()
    covered, free = journey.offers(
        campaign, {"labels": {"line": "coast"}}, {"labels": {"line": "valley"}}
    )
    journey.wait_state(free, "published")
    journey.wait_state(covered, "held")
    journey.release(hold_id)


def test_offers_are_cancelled_until_they_are_handed_over(journey: Journey) -> None:
    campaign = journey.campaign()
    gone, later = journey.offers(campaign, {}, {"due_at": soon(3600)})
    journey.wait_state(gone, "published")
    answer = journey.marketing.post(f"/v1/posts/{gone}/cancel")
    assert (answer.status_code, "is published" in answer.json()["detail"]) == (409, True)
    assert journey.marketing.post(f"/v1/posts/{later}/cancel").json()["state"] == "cancelled"


def test_a_cancelled_campaign_takes_no_offers(journey: Journey) -> None:
    campaign = journey.campaign()
    (post_id,) = journey.offers(campaign, {"due_at": soon(3600)})
    journey.marketing.post(f"/v1/campaigns/{campaign}/cancel").raise_for_status()
    assert journey.state(post_id) == "cancelled"
    body = {"account": "social-en", "text": "x", "due_at": soon(1)}
    assert journey.marketing.post(f"/v1/campaigns/{campaign}/posts", json=body).status_code == 409


def test_posts_are_listed_page_by_page(journey: Journey) -> None:
    campaign = journey.campaign()
    made = journey.offers(campaign, *[{"due_at": soon(3600)} for _ in range(5)])
    found, cursor = list[str](), "0"
    while cursor is not None:
        params = {"campaign_id": campaign, "limit": "2", "cursor": cursor}
        page = journey.marketing.get("/v1/posts", params=params).json()
        found += [post["post_id"] for post in page["posts"]]
        cursor = page["next"]
    assert found == made


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"text": ""}, "/0/text"),
        ({"due_at": "2026-10-17T18:02:00"}, "/0/due_at"),
        ({"account": "No Account"}, "/0/account"),
        ({"labels": {"line": ""}}, "/0/labels/line"),
        ({"labels": {"a-b": "x"}}, "/0/labels/a-b/[key]"),
        ({"due_at": "2099-01-02T00:00:00Z", "latest_at": "2099-01-01T00:00:00Z"}, "/0/latest_at"),
    ],
)
def test_bad_input_names_its_field_and_queues_nothing(
    journey: Journey, body: dict[str, object], pointer: str
) -> None:
    campaign = journey.campaign()
    known = {"account": "social-en", "text": "x", "due_at": soon(1)}
    answer = journey.marketing.post(f"/v1/campaigns/{campaign}/posts", json=known | body)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert journey.marketing.get(f"/v1/campaigns/{campaign}").json()["counts"] == {}


def test_nobody_approves_what_they_wrote(journey: Journey) -> None:
    hold_id = journey.hold(f'{{network="{journey.network}"}}')
    (post_id,) = journey.offers(journey.campaign(), {})
    journey.wait_state(post_id, "held")
    journey.release(hold_id)
    journey.wait_state(post_id, "review")
    assert journey.marketing.post(f"/v1/posts/{post_id}/approve").status_code == 403
    assert journey.approver.post(f"/v1/posts/{post_id}/approve").is_success
    journey.wait_state(post_id, "published")
    assert journey.approver.post(f"/v1/posts/{post_id}/approve").status_code == 409


def test_a_key_for_another_request_is_refused(journey: Journey) -> None:
    headers = {"idempotency-key": journey.network}
    assert journey.marketing.post("/v1/campaigns", json={"name": "a"}, headers=headers).is_success
    answer = journey.marketing.post("/v1/campaigns", json={"name": "b"}, headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/Idempotency-Key")
