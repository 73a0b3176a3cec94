"""The control room of a campaign: it says what stands and what is over, and again where Kafka has lost records.

A detector that finds records gone unread holds everything until a person has looked. To look means: say again what
stands, and what is over since a moment, and only then release the hold.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

AGAIN_S: Final = 120.0  # What has been over for longer was read long ago.
LAG_S: Final = 15.0  # So far a detector may have been behind when it was stopped.
Write = Callable[[str, str, str], float]


@dataclass
class _Case:
    network: str
    begun_s: float = math.inf
    over_s: float = math.inf
    is_over: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class Room:
    """What one control room knows; `write` appends a report and returns when it was acknowledged."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._cases: dict[str, _Case] = {}
        self.unread: list[tuple[float, float]] = []  # When what was written may be lost.
        self.over_unread: set[str] = set()  # Perhaps nobody knows of these, and they are over.

    def opened(self, name: str, network: str) -> float:
        """Report a disruption; returns when that was acknowledged."""
        case = self._cases[name] = _Case(network)  # Before it is written: it may be lost at once.
        case.begun_s = self._write(name, network, "opened")
        return case.begun_s

    def over(self, name: str) -> None:
        """Report its end."""
        case = self._cases[name]
        with case.lock:  # Nobody says behind this that it stands.
            case.is_over = True
            case.over_s = self._write(name, case.network, "resolved")

    def say_again(self) -> None:
        """Report all that stands, and all that is over since a moment."""
        now_s = time.monotonic()
        for name, case in list(self._cases.items()):
            if case.over_s < now_s - AGAIN_S:
                continue
            with case.lock:
                self._write(name, case.network, "resolved" if case.is_over else "opened")
            if case.is_over and self._may_be_unread(case.begun_s):
                self.over_unread.add(name)

    def _may_be_unread(self, at_s: float) -> bool:
        return any(begin - LAG_S <= at_s <= end for begin, end in self.unread)
