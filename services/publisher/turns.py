"""Whose turn it is: offers as many at once as a channel bears, an incident's updates one behind the other.

An offer that is to be tried again steps aside, and comes before those of its account that wait. An update stays the
first of its incident, so that customers read them in their order; one that has been tried for long lets those
behind it by (`LET_BY_S` in `failures.py`), and is tried once more before each of them: where a network takes nothing, all keep
their order, unless it comes back between two tries of one round; where it does not take this one, the others go out.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from services.kit.broker import Crash
from services.publisher.job import Job

UPDATES_AT_ONCE: Final = 4  # Of an account: one that hangs stops not all. See BESIDE_OFFERS.
Settle = Callable[[Job], Awaitable[None]]


class Turns(Protocol):
    """Who has a queue's jobs settled, each as often as it takes."""

    def put(self, job: Job) -> None: ...

    async def stop(self) -> None: ...


class SideBySide:
    """A queue for each account, with as many tasks as its channel bears."""

    def __init__(self, settle: Settle, *, parallel: Callable[[str], int], crash: Crash) -> None:
        self.settle, self.parallel, self.crash = settle, parallel, crash
        self._queues: dict[str, asyncio.Queue[Job]] = {}
        self._again: defaultdict[str, deque[Job]] = defaultdict(deque)  # Before those that wait.
        self._tasks: list[asyncio.Task[None]] = []

    def put(self, job: Job) -> None:
        """Let a job have its turn behind those of its account that were there before."""
        account = job.post.account
        if account not in self._queues:
            self._queues[account] = asyncio.Queue()
            self._tasks += [
                asyncio.create_task(self._work(account)) for _ in range(self.parallel(account))
            ]
        self._queues[account].put_nowait(job)

    async def _work(self, account: str) -> None:
        try:
            while True:
                again = self._again[account]
                job = again.popleft() if again else await self._queues[account].get()
                await self.settle(job)
                if job.again_s and not job.dropped:
                    asyncio.get_running_loop().call_later(job.again_s, self._come_back, job)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.crash(f"the delivery of {account} failed", error)

    def _come_back(self, job: Job) -> None:
        """Let a job that stepped aside be the next one; where nobody is at work, at once."""
        account = job.post.account
        if self._queues[account].empty():
            self._queues[account].put_nowait(job)
        else:
            self._again[account].append(job)

    async def stop(self) -> None:
        """End the tasks, whatever they are at."""
        await _end(self._tasks)


@dataclass(slots=True, eq=False)
class _Line:
    """An incident's updates on one account, the oldest first; whose turn it is, is in it."""

    task: asyncio.Task[None] | None = None
    jobs: list[Job] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)


class InOrder:
    """A line for each incident on each account, a few lines of an account at once."""

    def __init__(self, settle: Settle, *, crash: Crash) -> None:
        self.settle, self.crash = settle, crash
        self._lines: dict[tuple[str, str], _Line] = {}
        self._at_once: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(UPDATES_AT_ONCE)
        )

    def put(self, job: Job) -> None:
        """Let a job have its turn behind those of its incident."""
        name = job.post.account, job.post.incident_id or job.post.post_id
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = _Line()
            line.task = asyncio.create_task(self._work(name, line))
        line.jobs.append(job)
        line.came.set()

    async def _work(self, name: tuple[str, str], line: _Line) -> None:
        try:
            while line.jobs:
                stopped_by, rest_s = await self._try_each(line)
                if line.jobs:
                    await _rest(line, stopped_by, rest_s)
            del self._lines[name]
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.crash(f"the delivery of {' '.join(name)} failed", error)

    async def _try_each(self, line: _Line) -> tuple[Job | None, float]:
        """Try one behind the other, up to the first that lets nobody by; return it, and how long to wait."""
        place = 0
        while place < len(line.jobs):
            job = line.jobs[place]
            if not job.dropped:
                async with self._at_once[job.post.account]:
                    await self.settle(job)
            if job.dropped or not job.again_s:
                del line.jobs[place]
                if job.is_out and _overtake(line.jobs, job):
                    place = 0  # These end at once, so that nobody tries them behind it.
            elif not job.lets_by:
                return job, job.again_s
            else:
                place += 1
        line.came.clear()
        return None, min((job.again_s for job in line.jobs), default=0.0)

    async def stop(self) -> None:
        """End the tasks, whatever they are at."""
        await _end([line.task for line in self._lines.values() if line.task])


def _overtake(jobs: list[Job], later: Job) -> bool:
    """Mark those that did not get through and are no news any more: a later update in their language is out.

    A detector that begins again says again what it has said: where they stand in the topic tells not what is later.
    """
    language, at = later.post.language, later.post.due_at
    old = [
        job
        for job in jobs
        if job.failures and job.post.language == language and job.post.due_at < at
    ]
    for job in old:
        job.overtaken = True
    return bool(old)


async def _rest(line: _Line, stopped_by: Job | None, rest_s: float) -> None:
    """Wait for the next try; who comes meanwhile begins at once where nobody stands before."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(rest_s):
            while True:
                await line.came.wait()
                line.came.clear()
                if stopped_by is None or stopped_by.dropped:
                    return


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
