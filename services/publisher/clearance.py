"""A clearance in its channel's hands: looked at right before the first byte, and renewed there.

To connect, to sign in anew, to wait for a mail server that thinks: each can take longer than a lease. So the look
comes behind all of it, and where the clearance has run out by then the gate is asked again, while the connection
stands: an offer to a network that is slow to connect would go out on what was known before, or never.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

from schemas.posts import Post
from services.publisher.gate import Cleared, TooLate

Renew = Callable[[], Awaitable[Cleared]]


async def _never() -> Cleared:
    raise TooLate("the clearance ran out, and nobody renews it")


class Clearance:
    """What a channel is handed with a post, and the steady clock. `renew` raises TooLate where it may not go out now."""

    def __init__(
        self, cleared: Cleared, now_s: Callable[[], float], *, renew: Renew = _never
    ) -> None:
        self.cleared, self.now_s, self.renew = cleared, now_s, renew
        self.relied_on = cleared  # At the newest look that was well,
        self._looked_s: float | None = None  # and when that was.
        self.earlier: list[tuple[Cleared, datetime | None]] = []  # What parts before it relied on.

    @property
    def post(self) -> Post:
        return self.cleared.post

    @property
    def looked_at(self) -> datetime | None:
        """Return the brokers' time of the newest look; None: there was none, or it relied on no fence."""
        return None if self._looked_s is None else self.relied_on.at(self._looked_s)

    def check(self) -> None:
        """Raise TooLate where the clearance has run out. The last line before the I/O."""
        now_s = self.now_s()
        self.cleared.check(now_s)
        self.relied_on, self._looked_s = self.cleared, now_s

    async def confirm(self) -> None:
        """Look where the next thing to happen is the first byte; what has run out is renewed, once."""
        try:
            self.check()
        except TooLate:
            before = [] if self._looked_s is None else [(self.relied_on, self.looked_at)]
            self.cleared = await self.renew()
            self.check()
            self.earlier += before
