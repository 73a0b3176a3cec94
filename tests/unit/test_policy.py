"""Policies, their rules and their words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner, Result

from ops.policies import DEFAULT, WrongPolicy, read_policy
from schemas.envelope import in_words
from schemas.policies import Policy, Rule
from services.cli import app
from services.detector import messages
from services.detector.policy import (
    BEFORE_ANY_POLICY,
    NO_RULE_MATCHES,
    SCOPES,
    Judged,
    judge,
)
from tests.builders import AT, a_disruption, a_policy, a_rule

PLACE = {"line": "coast", "region": "west"}


def judged(*rules: Rule, event: dict[str, Any] | None = None, **policy: Any) -> Judged:
    found = a_policy(*rules, **policy) if rules else None
    known = a_disruption(labels=PLACE, **(event or {}))
    return judge(found, known, source="/control-room", at=AT)


def test_the_first_rule_that_matches_decides() -> None:
    assert judged(a_rule("a"), a_rule("b")).rule.name == "a"
    assert judged().rule is BEFORE_ANY_POLICY
    assert judged(a_rule("bus", match='{mode="bus"}')).rule is NO_RULE_MATCHES


@pytest.mark.parametrize(
    ("rule", "held"),
    [
        ({}, ['{network="northlink",line="coast"}']),
        ({"hold_by": ("region", "platform")}, ['{region="west"}']),
        ({"hold_by": ("platform",)}, ['{network="northlink"}']),
        ({"hold": "network"}, ['{network="northlink"}']),
        ({"hold": "everything"}, ["{}"]),
        ({"hold": "nothing"}, []),
        (
            {"hold_by": ("line",), "hold_also": (("region",), ("brand",))},
            ['{line="coast"}', '{region="west"}'],
        ),
    ],
)
def test_what_a_rule_holds(rule: dict[str, Any], held: list[str]) -> None:
    assert list(judged(a_rule(**rule)).scopes) == held


def test_a_label_may_imply_others() -> None:
    implied = {"line": {"coast": {"brand": "seaside", "region": "never: the event says it"}}}
    rule = a_rule(hold_by=("line",), hold_also=(("brand",), ("region",)))
    assert list(judged(rule, implied=implied).scopes) == [
        '{line="coast"}',
        '{brand="seaside"}',
        '{region="west"}',
    ]


def test_a_disruption_in_several_places_holds_in_each_of_them() -> None:
    found = judged(a_rule(), event={"scopes": [{"line": "coast"}, {"line": "valley"}]})
    assert [scope.split(",")[1] for scope in found.scopes] == ['line="coast"}', 'line="valley"}']


def test_a_disruption_in_too_many_places_holds_its_network() -> None:
    scopes = [{"line": f"line-{number}"} for number in range(SCOPES + 1)]
    assert judged(a_rule(), event={"scopes": scopes}).scopes == ('{network="northlink"}',)


def test_each_place_is_judged_by_its_own_rule_and_the_first_rule_is_the_incidents() -> None:
    """A rule for one line that holds nothing must not speak for the other line."""
    rules = (a_rule("coast", match='{line="coast"}', hold="nothing"), a_rule("rest"))
    found = judged(*rules, event={"scopes": [{"line": "valley"}, {"line": "coast"}]})
    assert found.scopes == ('{network="northlink",line="valley"}',)
    assert found.rule.name == "coast"


def test_rules_compare_numbers_and_one_that_is_missing_is_not_enough() -> None:
    rules = (a_rule("long", at_least={"delay_min": 15}), a_rule("short"))
    assert judged(*rules, event={"values": {"delay_min": 15}}).rule.name == "long"
    assert judged(*rules, event={"values": {"delay_min": 14.9}}).rule.name == "short"
    assert judged(*rules).rule.name == "short"


@pytest.mark.parametrize(
    ("match", "event"),
    [
        ('{severity="critical"}', {"severity": "critical"}),
        ('{source=~"/control.*"}', {}),
        ('{planned="true"}', {"planned": True}),
    ],
)
def test_rules_match_more_than_labels(match: str, event: dict[str, Any]) -> None:
    assert judged(a_rule("it", match=match), event=event).rule.name == "it"


def test_a_rule_applies_in_its_windows() -> None:
    windows = {"now": {"from": "18:00", "to": "19:00"}, "later": {"from": "19:00", "to": "20:00"}}
    rules = (a_rule("later", during=("later",)), a_rule("now", during=("now",)))
    assert judged(*rules, windows=windows).rule.name == "now"


def test_reports_are_grouped_by_labels_and_one_that_lacks_one_stands_alone() -> None:
    assert judged(a_rule(group_by=("network", "line"))).group == "network=northlink\nline=coast"
    assert judged(a_rule(group_by=("network", "platform"))).group == ""
    assert judged(a_rule()).group == ""


def test_the_default_policy_reads_and_its_templates_work() -> None:
    assert messages.check(read_policy(DEFAULT)) == {}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"colour": "red"}, "colour"),
        ({"rules": [{"name": "a", "mute": ["night"]}]}, "rules.0.mute"),
        ({"rules": [{"name": "a"}, {"name": "a"}]}, "rules.1.name"),
        ({"rules": [{"name": "a", "count": {"reports": 3, "within_s": 60}}]}, "group_by"),
        ({"windows": {"night": {"from": "22:00"}}}, "windows.night"),
        ({"stale": [{"source": "(", "after_s": 1, "hold": "{}"}]}, "stale.0.source"),
    ],
)
def test_a_policy_that_is_wrong_is_refused_by_name(changed: dict[str, Any], named: str) -> None:
    known = {"name": "x", "rules": [{"name": "a"}]}
    with pytest.raises(ValidationError) as error:
        Policy.model_validate(known | changed)
    assert named in in_words(error.value)


def test_every_mistake_of_a_policy_file_is_named_with_its_line(tmp_path: Path) -> None:
    file, words = tmp_path / "policy.yaml", tmp_path / "en.yaml"
    file.write_text(
        "name: x\n"
        "rules:\n"
        "  - name: a\n"
        "    hold: some\n"
        "  - {name: b, match: 'line=coast'}\n"
        "name: twice\n"
        "messages: {en: en.yaml}\n"
    )
    words.write_text("opened: x\nworking: x\n")
    with pytest.raises(WrongPolicy) as error:
        read_policy(file)
    told = [
        mistake.removeprefix(f"{tmp_path}/").split(": ")[:2] for mistake in error.value.mistakes
    ]
    assert told == [
        ["policy.yaml:6", "name"],
        ["policy.yaml:4", "rules.0.hold"],
        ["policy.yaml:5", "rules.1.match"],
        ["policy.yaml:7", "messages.en.resolved"],
    ]


def test_a_broken_template_is_named_with_the_line_of_its_own_file(tmp_path: Path) -> None:
    file, words = tmp_path / "policy.yaml", tmp_path / "en.yaml"
    file.write_text("name: x\nrules: [{name: a}]\nmessages: {en: en.yaml}\n")
    words.write_text("opened:\n  - '{{ title }}'\n  - '{{ titel }}'\nworking: x\nresolved: x\n")
    with pytest.raises(WrongPolicy, match=r"en\.yaml:3: messages\.en\.opened\.1: 'titel'"):
        read_policy(file)


@pytest.mark.parametrize("text", ["[", "- 1", "a: b: c"])
def test_what_is_no_policy_at_all_is_refused_with_a_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    with pytest.raises(WrongPolicy, match=r"policy\.yaml:1: "):
        read_policy(file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name: \xff", "can't decode byte 0xff"),
        (b"name: \x00", "special characters are not allowed"),
        (b"valid_from: 2026-13-45", "month must be in 1..12"),
        (b"[" * 5_000, "nested too deep"),
        (b"a: &a [*a, *a]", "nested too deep|a:"),
    ],
)
def test_a_policy_that_no_text_editor_wrote_is_refused_as_well(
    tmp_path: Path, content: bytes, said: str
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_bytes(content)
    with pytest.raises(WrongPolicy, match=said):
        read_policy(file)


FOLDER = DEFAULT.parent


@pytest.mark.parametrize("name", ["airline", "railway", "saas", "shop"])
def test_the_policies_that_come_with_it_do_what_their_examples_expect(name: str) -> None:
    told = run("test", FOLDER / f"{name}.yaml", FOLDER / "examples" / f"{name}.yaml")
    assert (told.exit_code, told.output.splitlines()[-1]) == (0, "1 example: as expected")


def test_an_example_that_is_not_met_says_where_and_ends_with_1(tmp_path: Path) -> None:
    example = tmp_path / "example.yaml"
    example.write_text(
        "steps:\n- {minute: 1, unreadable: x, expect: {holds: [], incidents: 0, said: []}}\n"
    )
    told = run("test", DEFAULT, example)
    assert told.exit_code == 1
    assert "minute 1: holds: expected (), found ('{}',)" in told.output


def test_an_example_that_cannot_be_read_is_named_with_its_line(tmp_path: Path) -> None:
    example = tmp_path / "example.yaml"
    example.write_text("steps:\n- {minute: 1}\n- {minute: -1}\n")
    told = run("test", DEFAULT, example)
    assert told.exit_code == 1
    assert f"{example}:3: steps.1.minute" in told.output


def test_check_counts_the_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("name: x\nrules: [{name: a, hold: some, for_s: -1}]\n")
    told = run("check", DEFAULT, file)
    assert told.exit_code == 1
    assert "default: 4 rules, en, fr" in told.output
    assert "2 mistakes" in told.output


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["policy", *map(str, words)])
