"""The judge from outside: what was acknowledged, what arrived on the network, what was said of it. Pure.

It imports nothing of Interlock. All times are seconds of one clock, the machine's CLOCK_MONOTONIC.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

Labels = Mapping[str, str]
_WORD: Final = re.compile(r"[\w-]+")
# What may be the end of an offer, and whether it then stands on the network; None: nobody knows.
ENDS: Final[Mapping[str, bool | None]] = {
    "published": True, "retraction_failed": True, "retracted": False, "failed": False,
    "uncertain": None, "expired": False, "review": False, "cancelled": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Disruption:
    """One disruption: when its report was acknowledged, and from when its end was on its way.

    With a name, one word of letters, digits and dashes, somebody must be told of it by that name.
    """

    name: str
    labels: Labels
    acknowledged_s: float
    over_s: float = float("inf")

    def covers(self, offer: Labels) -> bool:
        """Say whether it covers an offer; a label that the offer lacks is a doubt, and covers."""
        return all(offer.get(name, value) == value for name, value in self.labels.items())


@dataclass(frozen=True, slots=True)
class Arrival:
    """A post that was created on the network. It began to go out at most `slow_s` before."""

    at_s: float
    key: str
    text: str = ""
    slow_s: float = 0.0
    gone_s: float = float("inf")  # When it was deleted.
    part: int = 1  # Of a thread, whose parts arrive one by one.

    @property
    def begun_s(self) -> float:
        return self.at_s - self.slow_s

    @property
    def stands(self) -> bool:
        return math.isinf(self.gone_s)


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
    updates: int = 0
    counts: Counter[str] = field(default_factory=Counter)  # Of offers, by their end.
    covered: Counter[str] = field(default_factory=Counter)  # The same, of what a disruption covers.
    late: list[Late] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    left_standing: list[str] = field(default_factory=list)  # Said to be taken back, and there.
    unwanted: list[str] = field(default_factory=list)  # Cancelled, and sent behind that.
    untold: list[str] = field(default_factory=list)  # Disruptions of which no update arrived.
    told_twice: list[str] = field(default_factory=list)
    unaccounted: list[str] = field(default_factory=list)
    first_update_s: list[float] = field(default_factory=list)
    taken_back_s: list[float] = field(default_factory=list)  # For so long it stood, covered.

    @property
    def holds(self) -> bool:
        """Say whether the promise held. To be told twice is no breach where a network has no keys."""
        broken = (
            self.late, self.doubled, self.left_standing, self.unwanted, self.untold, self.unaccounted,
        )  # fmt: skip
        return not any(broken)


def judge(
    disruptions: Sequence[Disruption],
    offers: Mapping[str, Labels],
    arrivals: Iterable[Arrival],
    ends: Mapping[str, str | None],
    *,
    lease_s: float,
    may_end: Collection[str] = ENDS.keys(),
    cancelled: Mapping[str, float] = MappingProxyType({}),
) -> Verdict:
    """Decide. `offers` are those that were queued; `ends` what was last said of each.

    `cancelled` says of offers when it was confirmed that they were cancelled, and not only to be.
    """
    known = sorted(arrivals, key=lambda one: one.at_s)
    verdict = Verdict(races=len(disruptions))
    ours = [one for one in known if one.key in offers]
    verdict.arrived, verdict.updates = len(ours), len(known) - len(ours)
    times = Counter((one.key, one.part) for one in ours)
    verdict.doubled = sorted({key for (key, _), count in times.items() if count > 1})
    by_network: dict[str | None, list[Disruption]] = {}
    for disruption in disruptions:
        by_network.setdefault(disruption.labels.get("network"), []).append(disruption)
    for arrival in ours:
        if arrival.begun_s > cancelled.get(arrival.key, float("inf")):
            verdict.unwanted.append(arrival.key)
        for one in _covering(offers[arrival.key], by_network):
            _look_at_race(verdict, arrival, one, lease_s=lease_s)
    _look_at_updates(verdict, disruptions, [one for one in known if one.key not in offers])
    standing = {one.key for one in ours if one.stands}
    for key, labels in offers.items():
        end = ends.get(key)
        _look_at_end(verdict, key, end if end in may_end else None, stands=key in standing)
        if end is not None and any(_covering(labels, by_network)):
            verdict.covered[end] += 1
    return verdict


def _look_at_race(verdict: Verdict, arrival: Arrival, one: Disruption, *, lease_s: float) -> None:
    by_s = arrival.begun_s - one.acknowledged_s - lease_s
    if by_s > 0 and arrival.begun_s < one.over_s:
        verdict.late.append(Late(arrival.key, one.name, by_s))
    stood_from_s = max(one.acknowledged_s, arrival.at_s)
    if stood_from_s < arrival.gone_s < one.over_s:
        verdict.taken_back_s.append(arrival.gone_s - stood_from_s)


def _covering(
    offer: Labels, by_network: Mapping[str | None, Sequence[Disruption]]
) -> Iterable[Disruption]:
    where = [None, offer["network"]] if "network" in offer else list(by_network)
    return (one for name in where for one in by_network.get(name, ()) if one.covers(offer))


def _look_at_end(verdict: Verdict, key: str, end: str | None, *, stands: bool) -> None:
    verdict.counts[end or "unaccounted"] += 1
    if end == "retracted" and stands:
        verdict.left_standing.append(key)
    elif end is None or ENDS[end] not in (None, stands):
        verdict.unaccounted.append(key)


def _look_at_updates(
    verdict: Verdict, disruptions: Sequence[Disruption], updates: Sequence[Arrival]
) -> None:
    by_word: dict[str, list[Arrival]] = {}
    for update in updates:
        for word in set(_WORD.findall(update.text)):
            by_word.setdefault(word, []).append(update)
    for disruption in [one for one in disruptions if one.name]:
        about = by_word.get(disruption.name, [])
        if not about:
            verdict.untold.append(disruption.name)
            continue
        verdict.first_update_s.append(about[0].at_s - disruption.acknowledged_s)
        if max(Counter(one.key for one in about).values()) > 1:
            verdict.told_twice.append(disruption.name)
