"""Values for tests, each with sensible defaults: name what the test is about, and nothing else."""

from __future__ import annotations

import asyncio
import itertools
import math
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from ops.policies import DEFAULT, read_policy
from schemas.base import Record
from schemas.disruptions import Disruption
from schemas.envelope import Unreadable
from schemas.holds import HoldOpened, HoldReleased
from schemas.incidents import Incident, StatusUpdate
from schemas.labels import parse_matchers
from schemas.policies import Policy, Rule
from schemas.posts import Outcome, Post
from services.detector.state import Entry
from services.kit.telemetry import Clock
from services.publisher.clearance import Clearance, Renew
from services.publisher.gate import Cleared

AT = datetime(2026, 10, 17, 18, 2, tzinfo=UTC)
_numbers = itertools.count(1)
_EN = {
    "opened": "{{ title }}: opened",
    "working": "{{ title }}: working",
    "resolved": "{{ title }}: over",
}


# What two publishers are told where offers and updates have one each.
APART: Final = {
    "publisher": {"INTERLOCK_CARRIES": "offers"}, "publisher-2": {"INTERLOCK_CARRIES": "updates"},
}  # fmt: skip


def acknowledged() -> asyncio.Future[None]:
    """Return the future of a record that Kafka has acknowledged."""
    future = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future


def a_disruption(**values: Any) -> Disruption:
    return Disruption.model_validate(
        {
            "disruption_id": "train-9114",
            "network": "northlink",
            "status": "opened",
            "title": "Trains are standing",
            "labels": {"line": "coast"},
        }
        | values
    )


def an_entry(body: Record | Unreadable, *, offset: int = 0, **values: Any) -> Entry:
    number = next(_numbers)
    known: dict[str, Any] = {
        "partition": 2,
        "at": AT,
        "event_id": f"event-{number}",
        "source": "/control-room",
    }
    return Entry(offset=offset, body=body, **(known | values))


def a_rule(name: str = "line", **values: Any) -> Rule:
    """Return a rule that believes and speaks at once, unless the test is about that."""
    return Rule.model_validate({"name": name, "quiet_s": 0, "update_gap_s": 0} | values)


def a_policy(*rules: Rule, **values: Any) -> Policy:
    known = {"name": "test", "rules": rules or (a_rule(),), "messages": {"en": _EN}}
    return Policy.model_validate(known | values)


def at_once() -> dict[str, Any]:
    """Return a policy that waits for nothing: no quiet period, no gap between updates."""
    policy = read_policy(DEFAULT)
    rules = [rule.model_copy(update={"quiet_s": 0, "update_gap_s": 0}) for rule in policy.rules]
    return policy.model_copy(update={"rules": tuple(rules)}).model_dump(mode="json")


def a_hold(matchers: str = '{line="coast"}', **values: Any) -> HoldOpened:
    return HoldOpened.model_validate(
        {
            "hold_id": f"hold-{next(_numbers)}",
            "network": "northlink",
            "matchers": parse_matchers(matchers),
            "reason": "Trains are standing",
            "opened_at": AT,
        }
        | values
    )


def a_release(hold: HoldOpened, **values: Any) -> HoldReleased:
    known = {"hold_id": hold.hold_id, "released_at": AT, "reason": "over"}
    return HoldReleased.model_validate(known | values)


def a_post(**values: Any) -> Post:
    return Post.model_validate(
        {
            "post_id": f"post-{next(_numbers)}",
            "kind": "offer",
            "account": "social-en",
            "text": "Weekend in Saltmouth from 29",
            "labels": {"network": "northlink", "line": "coast"},
            "due_at": AT,
            "latest_at": AT + timedelta(hours=1),
        }
        | values
    )


def a_clearance(post: Post, *, until_s: float = math.inf, renew: Renew | None = None) -> Clearance:
    cleared = Cleared(post, until_s=until_s, fence=1)
    return Clearance(cleared, Clock().monotonic_s, **({"renew": renew} if renew else {}))


def an_outcome(**values: Any) -> Outcome:
    known = {
        "post_id": "post-1",
        "kind": "offer",
        "account": "social-en",
        "result": "published",
        "at": AT,
    }
    return Outcome.model_validate(known | values)


def an_incident(**values: Any) -> Incident:
    return Incident.model_validate(
        {
            "incident_id": "inc-2-0-0",
            "network": "northlink",
            "status": "investigating",
            "severity": "major",
            "title": "Trains are standing",
            "opened_at": AT,
            "changed_at": AT,
        }
        | values
    )


def an_update(**values: Any) -> StatusUpdate:
    return StatusUpdate.model_validate(
        {
            "update_id": "upd-2-0-0",
            "incident_id": "inc-2-0-0",
            "network": "northlink",
            "number": 1,
            "moment": "opened",
            "texts": {"en": "Trains are standing", "fr": "Les trains sont arrêtés"},
            "labels": {"network": "northlink", "line": "coast"},
            "written_at": AT,
        }
        | values
    )
