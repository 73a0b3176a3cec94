"""How long to wait behind a failure: doubled each time, with jitter, to a stated end."""

from __future__ import annotations

from typing import Final

FIRST_RETRY_S: Final = 0.25
LAST_RETRY_S: Final = 30.0
DOUBLINGS: Final = 20


def backoff_s(failures: int, *, chance: float) -> float:
    """Return the pause behind so many failures, in seconds.

    `chance`, 0 to 1, spreads accounts of one server, so that they do not come back together.
    """
    longest_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(failures, DOUBLINGS))
    return longest_s * (0.5 + chance / 2)
