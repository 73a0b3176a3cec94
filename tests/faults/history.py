"""The judge from outside: what was acknowledged, what arrived on the network, what was said of it. Pure.

It imports nothing of Interlock. All times are seconds of one clock, the machine's CLOCK_MONOTONIC.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Scope = tuple[str, str]  # Network and line.
ENDS = frozenset({"published", "expired", "failed", "uncertain", "retracted", "retraction_failed"})


@dataclass(frozen=True, slots=True)
class Disruption:
    """One disruption: when its report was acknowledged, and from when its end was on its way."""

    name: str
    scope: Scope
    acknowledged_s: float
    over_s: float = float("inf")


@dataclass(frozen=True, slots=True)
class Arrival:
    """A post that was created on the network. It began to go out at most `slow_s` before."""

    at_s: float
    key: str
    text: str
    slow_s: float = 0.0

    @property
    def begun_s(self) -> float:
        return self.at_s - self.slow_s


@dataclass(frozen=True, slots=True)
class Late:
    """An offer that went out though it was covered."""

    offer: str
    disruption: str
    by_s: float  # How long after acknowledgement and lease.


@dataclass(slots=True)
class Verdict:
    """What a history shows."""

    races: int = 0
    arrived: int = 0
    late: list[Late] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    untold: list[str] = field(default_factory=list)  # Disruptions of which no update arrived.
    told_twice: list[str] = field(default_factory=list)
    unaccounted: list[str] = field(default_factory=list)
    first_update_s: list[float] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Say whether the promise held. To be told twice is no breach where a network has no keys."""
        return not (self.late or self.doubled or self.untold or self.unaccounted)


def judge(
    disruptions: Sequence[Disruption],
    offers: Mapping[str, Scope],
    arrivals: Iterable[Arrival],
    outcomes: Mapping[str, str],
    *,
    lease_s: float,
) -> Verdict:
    """Decide. `offers` are those that were queued; `outcomes` the last that was said of each."""
    known = sorted(arrivals, key=lambda one: one.at_s)
    verdict = Verdict(races=len(disruptions))
    ours = [one for one in known if one.key in offers]
    verdict.arrived = len(ours)
    verdict.doubled = [key for key, times in Counter(a.key for a in ours).items() if times > 1]
    by_scope: dict[Scope, list[Disruption]] = {}
    for disruption in disruptions:
        by_scope.setdefault(disruption.scope, []).append(disruption)
    for arrival in ours:
        for one in by_scope.get(offers[arrival.key], ()):
            by_s = arrival.begun_s - one.acknowledged_s - lease_s
            if by_s > 0 and arrival.begun_s < one.over_s:
                verdict.late.append(Late(arrival.key, one.name, by_s))
    _look_at_updates(verdict, disruptions, [one for one in known if one.key not in offers])
    verdict.unaccounted = [key for key in offers if outcomes.get(key) not in ENDS]
    return verdict


def _look_at_updates(
    verdict: Verdict, disruptions: Sequence[Disruption], updates: Sequence[Arrival]
) -> None:
    for disruption in disruptions:
        named = re.compile(rf"(?<![\w-]){re.escape(disruption.name)}(?![\w-])")
        about = [one for one in updates if named.search(one.text)]
        if not about:
            verdict.untold.append(disruption.name)
            continue
        verdict.first_update_s.append(about[0].at_s - disruption.acknowledged_s)
        if max(Counter(one.key for one in about).values()) > 1:
            verdict.told_twice.append(disruption.name)
