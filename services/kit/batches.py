"""Calls that are made together: while one batch is under way, the next gathers.

One caller alone waits for nothing; a thousand at once cost a few statements.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

MOST: Final = 64  # All who waited for a batch run on at once, and others wait for them.
T = TypeVar("T")
R = TypeVar("R")


class Batches(Generic[T, R]):
    """Calls of one kind. `act` takes items and answers each, in their order; so many batches at once."""

    def __init__(self, act: Callable[[list[T]], Awaitable[list[R]]], *, at_once: int = 1) -> None:
        self._act, self._at_once = act, at_once
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._running: set[asyncio.Task[None] | None] = set()

    async def add(self, item: T) -> R:
        """Return the answer for one item; what a batch raises, all of its callers raise."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if len(self._running) < self._at_once:
            self._running.add(asyncio.create_task(self._run()))
        return await future

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                await self._answer(batch)
        finally:  # At once: a callback would come later than whoever adds to what nobody takes.
            self._running.discard(asyncio.current_task())

    async def _answer(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            answers = await self._act([item for item, _ in batch])
            assert len(answers) == len(batch), "an answer for each item"
        except BaseException as error:  # Whatever it is, whoever waits must hear it.
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
