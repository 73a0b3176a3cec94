"""One file per network. What a channel is, and what it may answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from traceback import extract_tb
from typing import Protocol, runtime_checkable

import structlog

from schemas.posts import Post
from services.publisher.clearance import Clearance
from services.publisher.ledger import Capabilities
from services.publisher.rates import Told

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Publication:
    """A post as it stands on a channel: the channel's id for it, and where people see it.

    A thread has the ids of its parts, separated by spaces. `told` is what the answer said of rates.
    `detail` is what a person should know though it went out.
    """

    id: str
    url: str | None = None
    told: Told | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Retracted:
    """A publication is gone; `remains` says what other people made of it that stays."""

    remains: str = ""
    told: Told | None = None


class Refused(Exception):
    """The channel said no, for good; nothing was published."""


class NotSent(Exception):
    """Nothing was published, and a later try may do. `retry_after_s` is the channel's own word."""

    def __init__(self, why: str, *, retry_after_s: float = 0, told: Told | None = None) -> None:
        super().__init__(why)
        self.retry_after_s, self.told = retry_after_s, told


class Unknown(Exception):
    """Nobody can say whether it was published."""


class Duplicate(Exception):
    """The network refuses what it has already: evidence, where a try before may have got through."""


class Uncertain(Exception):
    """Nobody can say whether it was published, and no second try would tell."""


class Partly(Exception):
    """Some of it went out; go on with the same key, behind a new clearance.

    `so_far` are the parts of a thread that stand, where they can be told apart. `because` is what the
    channel answered for the next one; None: the clearance ran out, not the channel.
    """

    def __init__(
        self,
        why: str,
        *,
        so_far: Publication | None = None,
        because: NotSent | Refused | Unknown | Uncertain | None = None,
    ) -> None:
        super().__init__(why)
        self.so_far, self.because = so_far, because


@contextmanager
def as_documented(otherwise: type[Unknown | NotSent] = Unknown) -> Iterator[None]:
    """Raise Unknown where an answer cannot be read as its network documents it; or NotSent, where it is of no post.

    A portal's page in place of JSON, say: one account that is answered so must not end what serves the others.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        frame = extract_tb(error.__traceback__)[-1]  # No values: a secret may be among them.
        why = f"{type(error).__name__}: {error}"
        log.error("an answer that is none", why=why, where=f"{frame.name}, line {frame.lineno}")
        raise otherwise(f"an answer that is none: {why}") from error


class Channel(Protocol):
    """One account on one network.

    `publish` takes what the gate cleared and nothing else; the clearance is looked at last before the first
    byte of the post, on a connection that stands: by `http.ask`, to which it is handed, or `clearance.confirm()`.
    `key` is the same for every try of one post. `retract` raises Refused where the channel will not, and treats
    what is already gone as done.
    """

    capabilities: Capabilities

    async def publish(self, clearance: Clearance, *, key: str) -> Publication: ...

    async def retract(self, publication: Publication) -> Retracted: ...

    async def aclose(self) -> None: ...


@runtime_checkable
class Learns(Protocol):
    """A channel whose capabilities are those of the server behind it, which is asked which one it is."""

    async def learn(self) -> None: ...


@runtime_checkable
class ReadsBack(Protocol):
    """A channel on which a post can be looked up whose answer was lost, as `reads_back` says.

    `age_s` is for how long it may be there, since its first try began: what is older is another post, of the same words.
    """

    async def look_up(self, post: Post, *, key: str, age_s: float) -> Publication | None: ...
