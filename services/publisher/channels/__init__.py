"""One file per network. What a channel is, and what it may answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from services.publisher.gate import Cleared
from services.publisher.ledger import Capabilities


@dataclass(frozen=True, slots=True)
class Publication:
    """A post as it stands on a channel: the channel's id for it, and where people see it."""

    id: str
    url: str | None = None


class Refused(Exception):
    """The channel said no, for good; nothing was published."""


class NotSent(Exception):
    """Nothing was published, and a later try may do. `retry_after_s` is the channel's own word."""

    def __init__(self, why: str, *, retry_after_s: float = 0) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


class Unknown(Exception):
    """Nobody can say whether it was published."""


class Channel(Protocol):
    """One account on one network.

    `publish` takes what the gate cleared and nothing else; its last line before the I/O is
    `cleared.check(...)`. `key` is the same for every try of one post. `retract` raises Refused
    where the channel will not, and treats what is already gone as done.
    """

    capabilities: Capabilities

    async def publish(self, cleared: Cleared, *, key: str) -> Publication: ...

    async def retract(self, publication: Publication) -> None: ...

    async def aclose(self) -> None: ...
