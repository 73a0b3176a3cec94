"""People at the incident desk: drafts, merge, split, in a system that runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ops.embedded.system import System
from tests.journey import Journey, wait_for

POLICY: dict[str, Any] = {
    "name": "desk",
    "rules": [
        {"name": "line", "group_by": ["network", "line"], "quiet_s": 0, "update_gap_s": 0,
         "approval": {"within_s": 3600}}
    ],
    "messages": {"en": {m: "{{ title }} " + m for m in ("opened", "working", "resolved")}},
}  # fmt: skip


@pytest.fixture
def desk(system: System, journey: Journey) -> Iterator[Journey]:
    """Return a journey under a policy that asks for approval; the suite's own comes back behind it."""
    with system.client("detector", "admin") as admin:
        before = next(p for p in admin.get("/v1/policy").json().values() if p is not None)
        admin.put("/v1/policy", json=POLICY).raise_for_status()
        yield journey
        admin.put("/v1/policy", json=before).raise_for_status()


def incidents(journey: Journey) -> list[dict[str, Any]]:
    found = journey.operations.get("/v1/incidents").raise_for_status().json()
    return [i for i in found if i["network"] == journey.network and i["status"] != "closed"]


def one(journey: Journey) -> dict[str, Any]:
    found: list[dict[str, Any]] = wait_for("the incident", lambda: incidents(journey))
    return found[0]


def test_a_draft_goes_out_when_somebody_approves_it(desk: Journey) -> None:
    desk.event()
    incident = one(desk)
    path = f"/v1/incidents/{incident['incident_id']}/updates/{incident['draft']['update_id']}"
    words = {"texts": {"en": f"Buses run. ({desk.network})"}}
    assert desk.operations.post(f"{path}/approve", json=words).status_code == 202
    wait_for("the update", desk.updates)
    assert {update["text"] for update in desk.updates()} == {words["texts"]["en"]}
    wait_for("no draft", lambda: one(desk).get("draft") is None)
    assert desk.operations.post(f"{path}/approve", json=words).status_code == 409


def test_people_merge_and_split_what_was_reported(desk: Journey) -> None:
    desk.event("a", labels={"line": "coast"})
    desk.event("b", labels={"line": "valley"})
    wait_for("two incidents", lambda: len(incidents(desk)) == 2)
    into, other = (i["incident_id"] for i in incidents(desk))
    body = {"into_id": into}
    assert desk.operations.post(f"/v1/incidents/{other}/merge", json=body).status_code == 202
    wait_for("one incident", lambda: [i["report_count"] for i in incidents(desk)] == [2])
    assert len(desk.holds()) == 2
    (merged,) = incidents(desk)
    path = f"/v1/incidents/{into}/split"
    wrong = desk.operations.post(path, json={"report_keys": ["nothing"]})
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/report_keys")
    every = desk.operations.post(path, json={"report_keys": merged["report_keys"]})
    assert every.status_code == 422
    key = merged["report_keys"][:1]
    assert desk.operations.post(path, json={"report_keys": key}).status_code == 202
    wait_for("two incidents", lambda: [i["report_count"] for i in incidents(desk)] == [1, 1])
    wait_for("a hold each", lambda: len(desk.holds()) == 2)
