"""What a policy says about one disruption: which rule applies, and what it holds."""

from __future__ import annotations

from schemas.labels import Matcher, matches
from schemas.policies import Policy, Rule

BEFORE_ANY_POLICY = Rule(name="before-the-first-policy", hold="everything")
NO_RULE_MATCHES = Rule(name="no-rule-matches", hold="network")


def rule_for(policy: Policy | None, labels: dict[str, str]) -> Rule:
    """Return the first rule that matches; a disruption no rule speaks of holds its network."""
    if policy is None:
        return BEFORE_ANY_POLICY
    return next((rule for rule in policy.rules if matches(rule.match, labels)), NO_RULE_MATCHES)


def scope_of(rule: Rule, labels: dict[str, str]) -> tuple[Matcher, ...] | None:
    """Return what a rule holds for a disruption with these labels; None where it holds nothing.

    A label that the rule holds by and the disruption lacks widens the hold: it says nothing there.
    """
    match rule.hold:
        case "nothing":
            return None
        case "everything":
            return ()
        case "network":
            names: tuple[str, ...] = ("network",)
        case "labels":
            names = rule.hold_by
    return tuple(
        Matcher(name=name, operator="=", value=labels[name]) for name in names if name in labels
    )
