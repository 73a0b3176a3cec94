"""The time that all publishers share: the brokers', as fences tell it.

Holds have the brokers' time. What a publisher writes down beside them has it too, so that a wall clock which is
wrong, or is set, neither hides a send from a take-back nor makes a right one look broken.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from services.kit.telemetry import Clock


class BrokersClock(Clock):
    """The brokers' time, and how the host's steady clock went on since; the host's time until a fence has told it."""

    def __init__(self, host: Clock) -> None:
        self.host = host
        self._told: tuple[datetime, float] | None = None

    def hear(self, at: datetime, *, at_s: float) -> None:
        """Take the brokers' time of a moment of the steady clock."""
        self._told = (at, at_s)

    def now(self) -> datetime:
        if self._told is None:
            return self.host.now()
        at, at_s = self._told
        return at + timedelta(seconds=self.monotonic_s() - at_s)

    def monotonic_s(self) -> float:
        return self.host.monotonic_s()
