"""Fakes that keep the contract of the real thing: see tests/contracts."""

from __future__ import annotations

import math

from schemas.posts import Post
from services.kit.telemetry import Clock
from services.publisher.channels import Publication, Retracted
from services.publisher.clearance import Clearance
from services.publisher.ledger import Capabilities, ReadBack


class FakeChannel:
    """A channel in memory: one post per key, and whatever goes wrong next in `failures`."""

    def __init__(
        self,
        clock: Clock,
        *,
        idempotent_s: float = math.inf,
        can_delete: bool = True,
        reads_back: ReadBack = "none",
        parallel: int = 1,
    ) -> None:
        self.clock = clock
        self.capabilities = Capabilities(
            idempotent_s=idempotent_s,
            can_delete=can_delete,
            reads_back=reads_back,
            parallel=parallel,
        )
        self.standing: dict[str, Post] = {}
        self.failures: list[Exception] = []
        self.lost_answers: list[Exception] = []  # Raised after the post was created.
        self.tries = self.looks = 0

    async def publish(self, clearance: Clearance, *, key: str) -> Publication:
        clearance.check()
        self.tries += 1
        if self.failures:
            raise self.failures.pop(0)
        name = key if self.capabilities.idempotent_s else f"{key}-{self.tries}"
        self.standing[name] = clearance.post
        if self.lost_answers:
            raise self.lost_answers.pop(0)
        return Publication(name)

    async def look_up(self, post: Post, *, key: str, age_s: float) -> Publication | None:
        self.looks += 1
        if self.failures:
            raise self.failures.pop(0)
        found = [name for name, known in self.standing.items() if known == post]
        return Publication(found[0]) if found else None

    async def retract(self, publication: Publication) -> Retracted:
        if self.failures:
            raise self.failures.pop(0)
        self.standing.pop(publication.id, None)
        return Retracted()

    async def aclose(self) -> None:
        return
