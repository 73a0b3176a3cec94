"""What a policy says of one disruption: the rule, what is held, and which incident it belongs to.

A disruption in several places is judged in each of them: it holds what any of them holds, and the
rule that stands first among theirs is the incident's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from schemas.disruptions import Disruption
from schemas.labels import Matcher, format_matchers, full_match, matches
from schemas.policies import Policy, Rule, Stale
from services.detector.windows import any_inside

BEFORE_ANY_POLICY = Rule(name="before-the-first-policy", hold="everything")
NO_RULE_MATCHES = Rule(name="no-rule-matches", hold="network")
SCOPES = 20  # Of one disruption: one that asks for more holds, holds its whole network.
Labels = dict[str, str]


@dataclass(frozen=True, slots=True)
class Judged:
    """What the policy says. `group` is empty for a disruption that is an incident of its own."""

    rule: Rule
    scopes: tuple[str, ...]
    group: str


def judge(policy: Policy | None, event: Disruption, *, source: str, at: datetime) -> Judged:
    """Judge one disruption as it was reported."""
    places = places_of(policy, event)
    found = [(rule_for(policy, event, place, source=source, at=at), place) for place in places]
    scopes: dict[str, None] = {}
    for rule, place in found:
        scopes |= dict.fromkeys(scopes_of(rule, place))
    if len(scopes) > SCOPES:
        scopes = dict.fromkeys(_scope(("network",), places[0]))
    order = {rule.name: number for number, rule in enumerate(policy.rules)} if policy else {}
    rule = min((rule for rule, _ in found), key=lambda rule: order.get(rule.name, len(order)))
    return Judged(rule, tuple(scopes), _group(rule, places))


def labels_of(policy: Policy | None, event: Disruption) -> Labels:
    """Return the labels of a disruption as a whole, with what they imply."""
    return _with_implied(policy, {**event.labels, "network": event.network})


def places_of(policy: Policy | None, event: Disruption) -> list[Labels]:
    """Return the labels of each place that a disruption names, with what they imply."""
    if not event.scopes:
        return [labels_of(policy, event)]
    network = {"network": event.network}
    return [_with_implied(policy, event.labels | scope | network) for scope in event.scopes]


def _with_implied(policy: Policy | None, labels: Labels) -> Labels:
    if policy is None or not policy.implied:
        return labels
    found = dict(labels)
    for name, values in policy.implied.items():
        found = {**values.get(labels.get(name, ""), {}), **found}
    return found


def rule_for(
    policy: Policy | None, event: Disruption, labels: Labels, *, source: str, at: datetime
) -> Rule:
    """Return the first rule that matches; a disruption no rule speaks of holds its network."""
    if policy is None:
        return BEFORE_ANY_POLICY
    known = {
        **labels,
        "severity": event.severity,
        "source": source,
        "planned": "true" if event.planned else "false",
    }
    for rule in policy.rules:
        enough = all(event.values.get(n, float("-inf")) >= v for n, v in rule.at_least.items())
        if enough and matches(rule.match, known) and _now(policy, rule, at):
            return rule
    return NO_RULE_MATCHES


def _now(policy: Policy, rule: Rule, at: datetime) -> bool:
    return not rule.during or any_inside(policy, rule.during, at)


def scopes_of(rule: Rule, labels: Labels) -> tuple[str, ...]:
    """Return what a rule holds for a disruption with these labels, each a hold.

    A label that `hold_by` names and the disruption lacks widens the hold, up to its network. A
    set of `hold_also` without one of its labels is left out: it would only widen a second time.
    """
    match rule.hold:
        case "nothing":
            return ()
        case "everything":
            return ("{}",)
        case "network":
            return _scope(("network",), labels)
        case "labels":
            also = [names for names in rule.hold_also if all(name in labels for name in names)]
            found = [*_scope(rule.hold_by, labels), *(s for n in also for s in _scope(n, labels))]
            return tuple(dict.fromkeys(found))


def _scope(names: tuple[str, ...], labels: Labels) -> tuple[str, ...]:
    known = tuple((name, labels[name]) for name in names if name in labels)
    # Never wider than the network, unless the rule says `everything`.
    return (_written(known or (("network", labels["network"]),)),)


@lru_cache(maxsize=4096)
def _written(labels: tuple[tuple[str, str], ...]) -> str:
    matchers = (Matcher(name=name, operator="=", value=value) for name, value in labels)
    return format_matchers(tuple(matchers))


def _group(rule: Rule, places: list[Labels]) -> str:
    """Return what an incident's reports have in common.

    A label that is missing groups nothing, unless they are counted: what is not said is alike.
    """
    if not rule.group_by:
        return ""
    values = []
    for name in rule.group_by:
        found = {place.get(name, "") for place in places}
        if rule.count is None and (len(found) != 1 or found == {""}):
            return ""
        values.append(f"{name}={','.join(sorted(found))}")
    return "\n".join(values)


def stale_rule(policy: Policy | None, source: str) -> Stale | None:
    """Return the first rule about a source that is not read any more."""
    if policy is None:
        return None
    return next((stale for stale in policy.stale if full_match(stale.source, source)), None)
