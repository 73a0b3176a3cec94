"""An event loop whose time is made up, and processes in it that can be killed and stopped.

Time stands still while anything can run, and then jumps to what is next. A process is a context: what
was started in it belongs to it. Killed, none of its callbacks runs again, no `finally` either, as
with SIGKILL; stopped, they wait until it goes on, as with SIGSTOP, while time passes.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import events
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from weakref import WeakSet

from services.kit.telemetry import Clock

END_ROUNDS = 50
EPOCH = datetime(2026, 5, 1, 16, 0, tzinfo=UTC)


@dataclass(eq=False)
class Process:
    """One process. `skew_s` is how far its wall clock is off."""

    name: str
    is_alive: bool = True
    is_stopped: bool = False
    skew_s: float = 0.0
    asked: asyncio.Event = field(default_factory=asyncio.Event)  # To end, as by SIGTERM.
    waiting: list[Any] = field(default_factory=list)
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)


PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


class Stuck(Exception):
    """Nothing can happen any more, and somebody waits."""


class _Owned:
    """A callback that runs only while its process does."""

    _context: Context
    _loop: Any

    def held_back(self) -> bool:
        process = self._context.get(PROCESS)
        if process is None or self._loop.is_ending or (process.is_alive and not process.is_stopped):
            return False
        if process.is_alive:
            process.waiting.append(self)
        return True


class _Handle(events.Handle, _Owned):
    def _run(self) -> None:
        if not self.held_back():
            super()._run()


class _Timer(events.TimerHandle, _Owned):
    def _run(self) -> None:
        if not self.held_back():
            super()._run()


class Loop(asyncio.BaseEventLoop):
    """See above."""

    _ready: Any
    _scheduled: list[tuple[float, int, _Timer]]  # Tuples compare quickly.
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self.now_s, self.is_ending, self._timers = 0.0, False, 0
        self.tell: Callable[[str], None] | None = None  # Where what a service logs is told.
        self._tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        self.set_task_factory(self._new_task)
        self.set_exception_handler(lambda *_: None)  # Whoever was killed cleans nothing up.

    def time(self) -> float:
        return self.now_s

    def wall(self) -> datetime:
        """Return the time by a wall clock that is right."""
        return EPOCH + timedelta(seconds=self.now_s)

    def _new_task(
        self, loop: asyncio.AbstractEventLoop, main: Any, context: Context | None = None
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(main, loop=loop, context=context)
        self._tasks.add(task)
        return task

    def _run_once(self) -> None:
        """Run what is ready; where nothing is, let time pass until something is."""
        ready, scheduled = self._ready, self._scheduled
        while scheduled and scheduled[0][2].cancelled():
            heapq.heappop(scheduled)
        if not ready and not self._stopping:
            if not scheduled:
                raise Stuck
            self.now_s = max(self.now_s, scheduled[0][0])
        while scheduled and scheduled[0][0] <= self.now_s:
            ready.append(heapq.heappop(scheduled)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()

    def _timer_handle_cancelled(self, handle: events.TimerHandle) -> None:
        """Do nothing: it is passed over when its time has come."""

    def _call_soon(self, callback: Any, args: Any, context: Context | None) -> events.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> events.TimerHandle:
        timer = _Timer(when, callback, args, self, context)
        self._timers += 1
        heapq.heappush(self._scheduled, (when, self._timers, timer))
        return timer

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> events.TimerHandle:
        return self.call_at(self.now_s + delay, callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # As the thread would hand it on.
            future.set_exception(error)
        return future

    def outside(self, delay_s: float, act: Callable[[], None]) -> None:
        """Let the world do something later, whatever becomes of who asked."""
        self.call_later(delay_s, act, context=Context())

    def spawn(self, process: Process, main: Coroutine[Any, Any, Any]) -> None:
        """Begin something in a process."""
        context = copy_context()
        context.run(PROCESS.set, process)
        process.tasks.append(self.create_task(main, context=context))

    def go_on(self, process: Process) -> None:
        """Let a stopped process run again."""
        process.is_stopped = False
        waiting, process.waiting = process.waiting, []
        self._ready.extend(waiting)

    def end(self) -> None:
        """Cancel all that waits, that of killed processes too, and let it end."""
        self.is_ending = True
        self._scheduled.clear()
        for _ in range(END_ROUNDS):
            tasks = [task for task in self._tasks if not task.done()]
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            self.call_soon(self.stop)
            self.run_forever()
            self._scheduled.clear()
        self._ready.clear()
        self.close()

    def close(self) -> None:
        self._closed = True


class SimClock(Clock):
    """A process's clocks; the monotonic one is everybody's, as on one machine."""

    def __init__(self, loop: Loop, process: Process) -> None:
        self.loop, self.process = loop, process

    def now(self) -> datetime:
        return self.loop.wall() + timedelta(seconds=self.process.skew_s)

    def monotonic_s(self) -> float:
        return self.loop.now_s
