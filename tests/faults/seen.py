"""What a campaign has seen, and what that means: for the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ops.demo.judge import ENDS, Arrival, Disruption, Labels, Verdict, judge

LEASE_S: Final = 0.25
CALM: Final = {"network": "calm", "line": "none"}  # Of offers that nothing covers.
# Every plan of a campaign is to resume: nothing waits for a person.
MAY_END: Final = ENDS.keys() - {"review"}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault that was done, and when it ended."""

    what: str
    begun_s: float
    ended_s: float


@dataclass(slots=True)
class History:
    """All that was seen from outside."""

    disruptions: list[Disruption] = field(default_factory=list)
    offers: dict[str, Labels] = field(default_factory=dict)
    arrivals: list[Arrival] = field(default_factory=list)
    outcomes: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)  # To be cancelled, whatever was answered.
    cancelled: dict[str, float] = field(default_factory=dict)  # When that was confirmed.
    restarts: dict[str, int] = field(default_factory=dict)
    ledger_says: str = ""  # What `interlock audit verify` says of the same sends.
    over_unread: set[str] = field(default_factory=set)  # Perhaps lost, and over by then.
    begun_s: dict[str, float] = field(default_factory=dict)  # By the ledger, of what arrived late.

    def verdict(self) -> Verdict:
        """Let the judge decide."""
        found = self._judged()
        found.untold = [name for name in found.untold if name not in self.over_unread]
        return found

    def untold_unread(self) -> list[str]:
        """Return disruptions that nobody was told of, since Kafka lost them unread and they were over then."""
        return [name for name in self._judged().untold if name in self.over_unread]

    def _judged(self) -> Verdict:
        ends = {
            key: None if end == "cancelled" and key not in self.asked else end
            for key, end in self.outcomes.items()
        }
        return judge(
            self.disruptions, self.offers, self.arrivals, ends,
            lease_s=LEASE_S, may_end=MAY_END, cancelled=self.cancelled,
        )  # fmt: skip

    def all_ended(self) -> bool:
        """Say whether the scheduler names an end of each offer; what stands on the network is not read yet."""
        return all(self.outcomes.get(key) in MAY_END for key in self.offers)

    def sent_late(self) -> list[str]:
        """Return what began to go out too late, or nobody knows when.

        What began in time and was long on its way is not; nor what began when its disruption was over, on a network
        that had just been slow: of each single arrival nobody knows whether it still was.
        """
        known = {one.name: one for one in self.disruptions}
        return [
            late.offer
            for late in self.verdict().late
            if self._began_under(known[late.disruption], late.offer)
        ]

    def _began_under(self, one: Disruption, offer: str) -> bool:
        begun_s = self.begun_s.get(offer)
        return begun_s is None or one.acknowledged_s + LEASE_S < begun_s < one.over_s

    @property
    def promise_held(self) -> bool:
        verdict = self.verdict()
        verdict.late = [one for one in verdict.late if one.offer in self.sent_late()]
        return verdict.holds

    def stalls(self) -> dict[str, list[tuple[float, int]]]:
        """Return, by kind of fault, how long after its end the next calm offer arrived, in seconds.

        And how many other faults had begun by then, since.
        """
        calm = sorted(a.at_s for a in self.arrivals if self.offers.get(a.key) == CALM)
        found: dict[str, list[tuple[float, int]]] = {}
        for fault in self.faults:
            after = next((at for at in calm if at >= fault.ended_s), None)
            if after is not None:
                others = sum(fault.begun_s < one.begun_s < after for one in self.faults)
                found.setdefault(fault.what, []).append((after - fault.ended_s, others))
        return found
