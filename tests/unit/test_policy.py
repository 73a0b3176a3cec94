"""Policies, their rules and their words."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from ops.policies import DEFAULT, read_policy
from schemas.labels import format_matchers
from schemas.policies import Rule
from services.detector import messages
from services.detector.policy import BEFORE_ANY_POLICY, NO_RULE_MATCHES, rule_for, scope_of
from tests.builders import AT, a_policy, an_incident

LABELS = {"network": "northlink", "line": "coast", "region": "west"}


def test_the_first_rule_that_matches_decides() -> None:
    first, second = Rule(name="a"), Rule(name="b")
    assert rule_for(a_policy(first, second), LABELS) is first
    assert rule_for(None, LABELS) is BEFORE_ANY_POLICY
    bus = Rule.model_validate({"name": "bus", "match": '{mode="bus"}'})
    assert rule_for(a_policy(bus), LABELS) is NO_RULE_MATCHES


@pytest.mark.parametrize(
    ("rule", "held"),
    [
        (Rule(name="r"), '{network="northlink",line="coast"}'),
        (Rule(name="r", hold_by=("region", "platform")), '{region="west"}'),
        (Rule(name="r", hold="network"), '{network="northlink"}'),
        (Rule(name="r", hold="everything"), "{}"),
    ],
)
def test_what_a_rule_holds(rule: Rule, held: str) -> None:
    scope = scope_of(rule, LABELS)
    assert scope is not None
    assert format_matchers(scope) == held


def test_a_rule_that_holds_nothing_opens_no_hold() -> None:
    assert scope_of(Rule(name="r", hold="nothing"), LABELS) is None


def test_the_default_policy_reads_and_its_templates_work() -> None:
    assert messages.check(read_policy(DEFAULT), an_incident()) == []


def test_times_are_in_the_policys_zone() -> None:
    words = {"opened": "{{ now }} {{ title }} {{ next_update }}", "working": "w", "resolved": "r"}
    policy = a_policy(messages={"en": words}, time_zone="Europe/London")
    incident = an_incident(next_update_at=AT + timedelta(minutes=20))
    text = messages.write(policy, "opened", incident, at=AT)["en"]
    assert text == "19:02 Trains are standing 19:22"


@pytest.mark.parametrize(
    "template", ["{{ nothing }}", "{% if %}", "{{ ''.__class__.__mro__ }}", "{{ 1 / 0 }}"]
)
def test_a_template_that_fails_says_the_title_and_is_named_by_the_check(template: str) -> None:
    words = {"opened": template, "working": "we work", "resolved": "it is over"}
    policy = a_policy(messages={"en": words})
    assert messages.write(policy, "opened", an_incident(), at=AT) == {"en": "Trains are standing"}
    assert [said.partition(": ")[0] for said in messages.check(policy, an_incident())] == [
        "messages.en.opened"
    ]


def test_a_policy_file_that_is_wrong_names_the_field(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("name: x\nrules: [{name: a, hold: some}]\n")
    with pytest.raises(ValueError, match=r"rules\.0\.hold"):
        read_policy(file)
    file.write_text("[")
    with pytest.raises(ValueError, match=r"policy\.yaml"):
        read_policy(file)
