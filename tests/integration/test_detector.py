"""The detector's doors and its log, on real Kafka."""

from __future__ import annotations

import json
import signal
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpx
import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from schemas.disruptions import Disruption
from schemas.topics import DISRUPTIONS, HOLDS, SNAPSHOTS
from services.detector.fold import LOST
from tests.builders import a_disruption, at_once
from tests.journey import Journey, wait_for

NEARLY = timedelta(minutes=10)  # Than this no test lasts longer; it is not 1970.


def an_event(journey: Journey, **data: Any) -> dict[str, Any]:
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": uuid.uuid4().hex,
        "source": "/control-room",
    }
    known = {
        "disruption_id": uuid.uuid4().hex,
        "network": journey.network,
        "status": "opened",
        "title": "x",
    }
    return event | {"type": Disruption.TYPE, "data": known | data}


def post(journey: Journey, body: Any, kind: str) -> Any:
    headers = {"content-type": kind}
    return journey.emitter.post("/v1/events", content=json.dumps(body), headers=headers)


def test_structured_and_batched_events_are_taken_and_acknowledged(journey: Journey) -> None:
    one = post(journey, an_event(journey), "application/cloudevents+json")
    two = post(
        journey, [an_event(journey), an_event(journey)], "application/cloudevents-batch+json"
    )
    assert [one.status_code, two.status_code] == [202, 202]
    receipts = one.json() + two.json()
    assert len({(r["partition"], r["offset"]) for r in receipts}) == 3
    wait_for("three holds", lambda: len(journey.holds()) == 3)


def test_a_batch_with_one_bad_event_is_refused_whole(journey: Journey) -> None:
    batch = [an_event(journey), an_event(journey, severity="bad")]
    answer = post(journey, batch, "application/cloudevents-batch+json")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["detail"].startswith("severity: ")
    assert journey.holds() == []


def test_other_types_and_other_bodies_are_refused_by_name(journey: Journey) -> None:
    assert (
        "none of interlock.disruption.v1"
        in post(journey, an_event(journey) | {"type": "x"}, "application/cloudevents+json").json()[
            "detail"
        ]
    )
    assert post(journey, {"a": 1}, "application/json").status_code == 422
    assert post(journey, [], "application/cloudevents-batch+json").status_code == 422


def test_a_producer_may_write_structured_events_to_the_topic(journey: Journey) -> None:
    producer: Any = KafkaProducer(bootstrap_servers=journey.system.kafka, acks="all")
    value = json.dumps(an_event(journey)).encode()
    headers = [("content-type", b"application/cloudevents+json")]
    producer.send(DISRUPTIONS.name, value=value, key=journey.network.encode(), headers=headers)
    producer.close()
    wait_for("the hold", journey.holds)


def test_a_detector_that_was_killed_knows_what_it_held(journey: Journey) -> None:
    journey.event()
    (hold,) = wait_for("the hold", journey.holds)
    journey.system.replace("detector")
    journey.event(status="resolved")
    wait_for("the release", lambda: not journey.holds())
    facts = journey.read_all(HOLDS.name)
    opened = {r.key for r in facts if journey.network.encode() in (r.value or b"")}
    assert opened == {f"opened/{hold['hold_id']}".encode()}
    assert f"released/{hold['hold_id']}".encode() in {r.key for r in facts}


@pytest.fixture
def loses(journey: Journey) -> Iterator[Journey]:
    """Return a journey that loses records; the policy that other tests rely on may be among them."""
    yield journey
    with journey.system.client("detector", "admin") as admin:
        admin.put("/v1/policy", json=at_once()).raise_for_status()


def test_records_that_are_gone_unread_hold_everything(loses: Journey) -> None:
    """Retention passed the snapshot: nobody knows what the lost records said."""
    loses.system.children["detector"].stop(signal.SIGKILL)
    loses._broken.add("detector")
    loses.produce(DISRUPTIONS.name, a_disruption(network=loses.network))
    delete_what_is_there(loses)
    loses.system.replace("detector")
    (hold,) = wait_for("the precautionary hold", loses.holds)
    assert hold["matchers"] == "{}"
    assert "lost" in hold["reason"]
    assert abs(datetime.fromisoformat(hold["opened_at"]) - datetime.now(UTC)) < NEARLY


def test_a_hold_whose_beginning_is_lost_ends_by_itself(loses: Journey) -> None:
    """Found by the campaign: what is said behind the last snapshot, and its records deleted, was nobody's to end."""
    hold_id = said_and_forgotten(loses)
    delete_what_is_there(loses)
    loses.system.replace("detector")

    def reasons() -> dict[str, str]:
        return {hold["hold_id"]: hold["reason"] for hold in loses.holds()}

    wait_for("the precautionary hold", lambda: LOST in reasons().values())
    wait_for("the end of the other", lambda: hold_id not in reasons())
    (precaution,) = (name for name, reason in reasons().items() if reason == LOST)

    def standing() -> list[dict[str, Any]]:
        known = loses.operations.get("/v1/incidents").raise_for_status().json()
        ours = [one for one in known if one["network"] == loses.network]
        return [one for one in ours if one["status"] != "closed"]

    assert standing(), "nobody has looked yet"
    loses.release(precaution)
    wait_for("the end of its incident", lambda: not standing())


def said_and_forgotten(journey: Journey) -> str:
    """End the detector between a hold and the snapshot that knows of it; return the hold's id."""
    for number in range(5):  # A snapshot may have come between.
        known = {hold["hold_id"] for hold in journey.holds()}
        event = a_disruption(network=journey.network, disruption_id=f"forgotten-{number}")
        journey.produce(DISRUPTIONS.name, event)

        def new(before: set[str] = known) -> set[str]:
            return {hold["hold_id"] for hold in journey.holds()} - before

        (hold_id,) = wait_for("the hold", new)
        journey.system.children["detector"].stop(signal.SIGKILL)
        if not any(hold_id.encode() in r.value for r in journey.read_all(SNAPSHOTS.name)):
            journey._broken.add("detector")
            return str(hold_id)
        journey.system.replace("detector")
    raise AssertionError("each time a snapshot knew of it")


def delete_what_is_there(journey: Journey) -> None:
    """Delete all records of this network's partition, as retention does."""
    partition = max(
        r.partition for r in journey.read_all(DISRUPTIONS.name) if r.key == journey.network.encode()
    )
    admin: Any = KafkaAdminClient(bootstrap_servers=journey.system.kafka)
    admin.delete_records({TopicPartition(DISRUPTIONS.name, partition): -1})
    admin.close()


def test_a_detector_that_slept_sees_that_records_are_gone_unread(loses: Journey) -> None:
    """The model's CUT_UNSEEN: Kafka's client goes on at what is left, and says nothing of the gap."""
    detector = loses.system.children["detector"]
    detector.tell(signal.SIGSTOP)
    try:
        # The first ends the fetch that is under way; what comes behind it is asked for too late.
        over = a_disruption(network=loses.network, disruption_id="none", status="resolved")
        loses.produce(DISRUPTIONS.name, over)
        loses.produce(DISRUPTIONS.name, a_disruption(network=loses.network))
        delete_what_is_there(loses)
    finally:
        detector.tell(signal.SIGCONT)
    (hold,) = wait_for("the precautionary hold", loses.holds)
    assert hold["matchers"] == "{}"
    assert "lost" in hold["reason"]
    loses.release(hold["hold_id"])


def test_snapshots_are_written_for_what_was_folded(journey: Journey) -> None:
    journey.event()

    def written() -> bool:
        return any(journey.network.encode() in r.value for r in journey.read_all(SNAPSHOTS.name))

    wait_for("a snapshot that knows of it", written)


def test_one_trace_leads_from_the_event_to_the_post(journey: Journey) -> None:
    trace = uuid.uuid4().hex
    data = an_event(journey, title=f"Traced ({journey.network})")["data"]
    journey.emit(data, traceparent=f"00-{trace}-00f067aa0ba902b7-01").raise_for_status()
    wait_for("the updates", lambda: len(journey.updates()) >= 2)

    def logged(service: str, event: str) -> bool:
        lines = (journey.system.data / "logs" / f"{service}.log").read_text().splitlines()
        return any(trace in line and f'"event": "{event}"' in line for line in lines)

    for service, event in (
        ("detector", "folded"),
        ("publisher", "hold"),
        ("publisher", "outcome"),
        ("scheduler", "hold"),
    ):
        wait_for(f"the trace in {service}'s log", partial(logged, service, event))


def _answers(client: httpx.Client, ready: dict[str, Any]) -> bool:
    return bool(client.get("/readyz").json() == ready)


def test_each_service_measures_itself(journey: Journey) -> None:
    for service in ("detector", "publisher", "scheduler"):
        with journey.system.client(service, "viewer") as client:
            text = client.get("/metrics").raise_for_status().text
            names = {family.name for family in text_string_to_metric_families(text)}
            assert "interlock_http_seconds" in names
            ready = {"status": "ready", "missing": {}}
            wait_for("ready", partial(_answers, client, ready))
        if service == "publisher":
            assert {"interlock_fence_seconds", "interlock_hold_seconds"} <= names
