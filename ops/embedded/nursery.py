"""A process that has imported the services and becomes one in each fork: their imports are paid once, not by each.

It is run as `python -m ops.embedded.nursery MODULE…` with orders on its standard input and answers on its standard
output, a line of JSON each, and does one thing at a time in one thread. What it forks ends with it, and it
with us.
"""

from __future__ import annotations

import ctypes
import gc
import json
import math
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from ops.embedded.process import CHILD, POLL_S, CannotStart, tail

MODULES: Final = (
    "services.cli", "services.detector.app", "services.publisher.app", "services.scheduler.app",
    "ops.sandbox.server", "uvicorn", "uvloop",
)  # fmt: skip
PR_SET_PDEATHSIG: Final = 1
PR_SET_NAME: Final = 15


class Nursery:
    """The nursery as its owner sees it. Close it last."""

    def __init__(self, log: Path, *, modules: Sequence[str] = MODULES) -> None:
        self.log, self._lock = log, threading.Lock()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(CHILD), "SIGKILL", "as-is", sys.executable, "-m", __name__, *modules],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out, text=True,
                env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
                start_new_session=True,
            )  # fmt: skip

    def fork(self, module: Sequence[str], *, env: Mapping[str, str], log: Path) -> Forked:
        """Start a module, with its arguments behind it, as `python -m` would."""
        order = {"module": list(module), "env": dict(env), "log": str(log)}
        return Forked(self, int(self.ask(order)))

    def ask(self, order: dict[str, Any]) -> Any:
        """Give an order; the first one waits until all is imported."""
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            try:
                print(json.dumps(order), file=self._process.stdin, flush=True)
                answer = self._process.stdout.readline()
            except BrokenPipeError:
                answer = ""
        if not answer:
            raise CannotStart(
                f"the services cannot be imported, or who forks them was killed. {self.log} ends with:\n{tail(self.log)}"
            )
        return json.loads(answer)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Forked:
    """A process of the nursery, as far as `subprocess.Popen` is used."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.nursery, self.pid, self._lock = nursery, pid, threading.Lock()
        self._fd, self._status = os.pidfd_open(pid), None

    def poll(self) -> int | None:
        """Return its exit status, a negative number of a signal, or None while it runs."""
        with self._lock:  # Its end is told once: two threads may look.
            if self._status is None and _has_ended(self._fd):
                self._status = self.nursery.ask({"ended": self.pid})
                os.close(self._fd)
            return self._status

    def wait(self, timeout: float | None = None) -> int:
        until_s = time.monotonic() + (math.inf if timeout is None else timeout)
        while (status := self.poll()) is None:
            if time.monotonic() >= until_s:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            time.sleep(POLL_S)
        return status

    def send_signal(self, number: signal.Signals) -> None:
        with self._lock:
            if self._status is None:
                signal.pidfd_send_signal(self._fd, number)


def _has_ended(fd: int) -> bool:
    """Say whether the process of a descriptor has ended."""
    looking = select.poll()
    looking.register(fd, select.POLLIN)
    return bool(looking.poll(0))


def main() -> None:
    """Import all there is, and follow orders until there are no more."""
    orders, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    for name in sys.argv[1:]:
        import_module(name)
    parent = os.getpid()
    gc.collect()
    gc.freeze()  # What is imported is shared by all, and no collection walks through it.
    for line in orders:
        order = json.loads(line)
        if "ended" in order:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["ended"], 0)[1])
        elif (answer := os.fork()) == 0:
            orders.close()
            answers.close()
            return _become(parent, **order)
        print(answer, file=answers, flush=True)
    return None


def _become(parent: int, module: list[str], env: dict[str, str], log: str) -> None:
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return  # It died before the kernel was asked.
    libc.prctl(PR_SET_NAME, module[-1].encode(), 0, 0, 0)
    os.setsid()
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for fd, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, out), (2, out)):
        os.dup2(source, fd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = module
    sys.modules.pop(module[0], None)  # It is run anew, as the main module.
    runpy.run_module(module[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
