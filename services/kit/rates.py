"""So many requests a minute for each caller, counted by each process for itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

WINDOW_S: Final = 60


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a window; `is_over`: this request is one too many."""

    most: int
    left: int
    reset_s: int
    is_over: bool

    def headers(self) -> dict[str, str]:
        """Return the headers of draft-ietf-httpapi-ratelimit-headers, sections 3 and 4."""
        return {
            "ratelimit-policy": f'"minute";q={self.most};w={WINDOW_S}',
            "ratelimit": f'"minute";r={self.left};t={self.reset_s}',
        } | ({"retry-after": str(self.reset_s)} if self.is_over else {})


class PerMinute:
    """Counts in windows of a minute that begin with a caller's first request."""

    def __init__(self, most: int, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self.most, self._now_s = most, now_s
        self._windows: dict[str, tuple[float, int]] = {}

    def take(self, name: str = "") -> Left:
        """Count one request of a caller."""
        now_s = self._now_s()
        begun_s, count = self._windows.get(name, (now_s, 0))
        if now_s - begun_s >= WINDOW_S:
            begun_s, count = now_s, 0
        self._windows[name] = begun_s, count + 1
        reset_s = math.ceil(begun_s + WINDOW_S - now_s)
        return Left(self.most, max(0, self.most - count - 1), reset_s, count >= self.most)
