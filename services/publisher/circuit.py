"""Whether an account that fails is tried by offers: a circuit breaker for each, as a table.

    closed ──FAILURES in a row──▶ open ──its time is up──▶ half-open ──it worked──▶ closed
                                    ▲                           └──────it failed──▶ open, for longer

One that had nothing to send says nothing: the next may try. Updates are tried whatever it says. One success closes it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

FAILURES: Final = 5
FIRST_OPEN_S: Final = 1.0
LONGEST_OPEN_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """What is known of one account. `open_until_s` is monotonic; `why` is the last failure."""

    failures: int = 0
    open_until_s: float = 0.0
    why: str = ""

    @property
    def is_open(self) -> bool:
        return self.failures >= FAILURES


def wait_s(circuit: Circuit, *, now_s: float) -> float:
    """Return how long an offer must wait; 0: it may try."""
    return max(0.0, circuit.open_until_s - now_s) if circuit.is_open else 0.0


def probing(circuit: Circuit, *, now_s: float) -> Circuit:
    """Return the circuit with one offer on its way: the others wait for what becomes of it."""
    return replace(circuit, open_until_s=now_s + _open_s(circuit)) if circuit.is_open else circuit


def unprobed(circuit: Circuit, *, now_s: float) -> Circuit:
    """Return the circuit behind an offer that was let through and did not ask: the next one may."""
    return replace(circuit, open_until_s=now_s) if circuit.is_open else circuit


def failed(circuit: Circuit, why: str, *, now_s: float) -> Circuit:
    """Return the circuit behind a failure."""
    worse = Circuit(failures=circuit.failures + 1, why=why)
    return replace(worse, open_until_s=now_s + _open_s(worse)) if worse.is_open else worse


def _open_s(circuit: Circuit) -> float:
    doubled = min(circuit.failures - FAILURES, 20)
    return float(min(LONGEST_OPEN_S, FIRST_OPEN_S * 2**doubled))
