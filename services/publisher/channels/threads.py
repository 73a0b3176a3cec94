"""A post of several parts. Each is a send of its own, behind its own look at the clearance.

What is out is told with whatever stopped the rest, so that nobody sends it twice: neither the next
clearance nor a later try.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

from schemas.channels import TextLimit, fits, length
from schemas.posts import Post
from services.publisher.channels import (
    NotSent,
    Partly,
    Publication,
    Refused,
    Uncertain,
    Unknown,
    as_documented,
)
from services.publisher.clearance import Clearance
from services.publisher.gate import TooLate
from services.publisher.ledger import Capabilities
from services.publisher.texts import parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a post. `number` counts from 0; `above` are the network's ids of those before it."""

    key: str
    text: str
    number: int
    of: int
    above: tuple[str, ...]


class Threads(ABC):
    """A channel that hangs one post on another: `publish` sends all parts, `go_on` what is left."""

    capabilities: Capabilities

    async def publish(self, clearance: Clearance, *, key: str) -> Publication:
        return await self.go_on(clearance, key=key, so_far=Publication(""))

    async def go_on(self, clearance: Clearance, *, key: str, so_far: Publication) -> Publication:
        """Send the parts behind those of `so_far`; raises Partly where some are out and some are not."""
        texts = self.texts(clearance.post)
        done = so_far
        for number in range(len(so_far.id.split()), len(texts)):
            above = tuple(done.id.split())
            part = Part(key=key, text=texts[number], number=number, of=len(texts), above=above)
            try:
                with as_documented():
                    made = await self._send(clearance, part)
            except TooLate as error:
                if done is so_far:
                    raise
                raise Partly(_so_many(number, texts, error), so_far=done) from error
            except (NotSent, Refused, Unknown, Uncertain) as error:
                if number == 0:
                    raise
                raise Partly(_so_many(number, texts, error), so_far=done, because=error) from error
            done = replace(made, id=" ".join((*above, made.id)), url=done.url or made.url)
        return done

    def texts(self, post: Post) -> list[str]:
        """Return the texts of a post's parts, as long as the channel takes them."""
        assert self.capabilities.text is not None, "a network with threads counts characters"
        return texts_of(post, self.capabilities.text)

    @abstractmethod
    async def _send(self, clearance: Clearance, part: Part) -> Publication:
        """Send one part; the clearance is looked at last before its first byte."""


def texts_of(post: Post, limit: TextLimit, *, first: TextLimit | None = None) -> list[str]:
    """Return the texts to publish: an update that is too long is a thread; an offer is refused.

    `first` is the limit of the first part where it has one of its own.
    """
    if post.kind == "update":
        try:
            return parts(post.text, first or limit)
        except ValueError as error:
            raise Refused(str(error)) from error
    for number, text in enumerate((post.text, *post.thread)):
        most = first if first and number == 0 else limit
        if not fits(text, most):
            name = f"part {number + 1} of the thread" if post.thread else "the text"
            raise Refused(f"{name} has {length(text, most)} of at most {most.most} characters")
    return [post.text, *post.thread]


def _so_many(out: int, texts: list[str], why: Exception) -> str:
    return f"{out} of {len(texts)} parts are out: {why}"
