"""What a policy names that the vocabulary of labels does not know: a typo there would hold nothing.

What a policy holds by must be an offer's labels. Events may carry names of their own: of those only the
values of known names are looked at. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from schemas.labels import Matchers
from schemas.policies import Policy, Rule
from schemas.vocabulary import Vocabulary, unknown

Where = tuple[str | int, ...]
OF_EVENTS = frozenset({"severity", "source", "planned"})
BY_VALUE = ("=", "!=")


def check(policy: Policy, vocabulary: Vocabulary) -> dict[Where, str]:
    """Return what is wrong, by where it stands in the policy."""
    found = dict(_held(policy, vocabulary)) | dict(_matched(policy, vocabulary))
    return {where: why for where, why in found.items() if why}


def _held(policy: Policy, vocabulary: Vocabulary) -> Iterator[tuple[Where, str]]:
    for number, rule in enumerate(policy.rules):
        for where, name in _names(rule):
            yield ("rules", number, *where), _of_name(vocabulary, name)
    for number, stale in enumerate(policy.stale):
        yield from _of_matchers(("stale", number, "hold"), stale.hold, vocabulary, names=True)
    yield from _of_matchers(("unreadable_holds",), policy.unreadable_holds, vocabulary, names=True)


def _names(rule: Rule) -> Iterator[tuple[Where, str]]:
    for number, name in enumerate(rule.hold_by):
        yield ("hold_by", number), name
    for number, names in enumerate(rule.hold_also):
        for inner, name in enumerate(names):
            yield ("hold_also", number, inner), name


def _matched(policy: Policy, vocabulary: Vocabulary) -> Iterator[tuple[Where, str]]:
    for number, rule in enumerate(policy.rules):
        yield from _of_matchers(("rules", number, "match"), rule.match, vocabulary)
    for number, one in enumerate(policy.inhibitions):
        yield from _of_matchers(("inhibitions", number, "by"), one.by, vocabulary)
        yield from _of_matchers(("inhibitions", number, "over"), one.over, vocabulary)
    for name, values in policy.implied.items():
        for value, labels in values.items():
            where: Where = ("implied", name, value)
            yield where, _of_value(vocabulary, name, value)
            for inner, implied in labels.items():
                yield (*where, inner), _of_value(vocabulary, inner, implied)


def _of_matchers(
    where: Where, matchers: Matchers, vocabulary: Vocabulary, *, names: bool = False
) -> Iterator[tuple[Where, str]]:
    said = []
    for one in matchers:
        if one.name in OF_EVENTS:
            continue
        said.append(_of_name(vocabulary, one.name) if names else "")
        if one.operator in BY_VALUE:
            said.append(_of_value(vocabulary, one.name, one.value))
    yield where, "; ".join(filter(None, said))


def _of_name(vocabulary: Vocabulary, name: str) -> str:
    if name in vocabulary.labels or vocabulary.others == "warn":
        return ""
    return unknown("label", name, vocabulary.labels)


def _of_value(vocabulary: Vocabulary, name: str, value: str) -> str:
    return vocabulary.objection(name, value) if name in vocabulary.labels else ""
