"""Children: started so that they die with us, stopped in order, their output in a file."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, Protocol

CHILD: Final = Path(__file__).with_name("child.py")
LOG_BYTES: Final = 10_000_000
TAIL_LINES: Final = 12
POLL_S: Final = 0.05
PORT_TRIES: Final = 20
FIRST_PORT: Final = 10_000
OUTGOING: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
NEEDED_BYTES: Final = 1_000_000_000


class CannotStart(Exception):
    """Something stands in the way; the text says what, and what to do."""


class Running(Protocol):
    """What is asked of a process, as `subprocess.Popen` and whatever a nursery has forked answer it."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: signal.Signals, /) -> None: ...


class Forks(Protocol):
    """A process that has imported what it forks (`nursery.py`)."""

    def fork(self, module: Sequence[str], *, env: Mapping[str, str], log: Path) -> Running: ...


class Child:
    """One process of ours."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        when_parent_dies: Literal["SIGKILL", "SIGTERM", "SIGINT"] = "SIGKILL",
        not_root: bool = False,
        nursery: Forks | None = None,
    ) -> None:
        """Start it; a Python module may be forked from a nursery that has imported it."""
        self.name, self.log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > LOG_BYTES:
            log.replace(log.with_suffix(".old.log"))
        self.process: Running
        if nursery is not None and list(command[:2]) == [sys.executable, "-m"]:
            self.process = nursery.fork(command[2:], env=env or os.environ, log=log)
            return
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-I", str(CHILD), when_parent_dies,
                    "not-root" if not_root else "as-is", *command,
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=dict(env) if env is not None else None,
                start_new_session=True,  # Ctrl-C is for the supervisor, which stops us in order.
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self.process.pid

    def ended(self) -> int | None:
        """Return the exit status, or None while it runs."""
        return self.process.poll()

    def must_run(self) -> None:
        """Raise CannotStart with the log's last lines when the process has ended."""
        status = self.ended()
        if status is not None:
            raise CannotStart(
                f"{self.name} ended with status {status}. Its log, {self.log}, ends with:\n"
                f"{tail(self.log)}"
            )

    def tell(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM, *, patience_s: float = 30) -> None:
        """Ask it to end, wait, and at last kill it."""
        if self.ended() is not None:
            return
        self.tell(number)
        try:
            self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.tell(signal.SIGKILL)
            self.process.wait(patience_s)


def tail(path: Path, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a log."""
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        return f"(no log: {error})"
    return "\n".join(text.splitlines()[-lines:])


def free_port(wanted: int = 0, *, but: Collection[int] = ()) -> int:
    """Return a free loopback port, the wanted one where it is still free; none that is spoken for."""
    for port in (wanted or _likely_port(), *(_likely_port() for _ in range(PORT_TRIES))):
        with socket.socket() as s, contextlib.suppress(OSError):
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", port))
            found = int(s.getsockname()[1])
            if found not in but:
                return found
    raise CannotStart("no free port on 127.0.0.1: end what holds them, see `ss -ltnp`")


def _likely_port() -> int:
    """Return a port that no outgoing connection is given before whoever is to listen on it has begun."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        first_outgoing = int(OUTGOING.read_text().split()[0])
        return FIRST_PORT + secrets.randbelow(first_outgoing - FIRST_PORT)
    return 0  # Whatever the kernel gives.


def must_be_free(port: int, *, what: str) -> None:
    """Raise CannotStart when a port that was asked for is taken."""
    if free_port(port) != port:
        raise CannotStart(
            f"port {port} for {what} is taken: see who has it with `ss -ltnp 'sport = :{port}'`, "
            "end that or choose another port"
        )


def must_have_space(folder: Path, *, needed_bytes: int = NEEDED_BYTES) -> None:
    """Raise CannotStart when the disk under a folder is nearly full."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise CannotStart(
            f"{folder}: {free / 1e6:.0f} MB are free on that disk and {needed_bytes / 1e6:.0f} MB "
            "are needed: make room, or name a folder on another disk with --data"
        )


def wait_until(ready: object, *, what: str, child: Child, patience_s: float) -> None:
    """Call `ready` until it says True; raise CannotStart when the child ends or time is up."""
    assert callable(ready)
    until_s = time.monotonic() + patience_s
    while not ready():
        child.must_run()
        if time.monotonic() > until_s:
            raise CannotStart(
                f"{what} did not answer within {patience_s:.0f} s. Its log, {child.log}, ends "
                f"with:\n{tail(child.log)}"
            )
        time.sleep(POLL_S)


def cache_folder() -> Path:
    """Return the user's cache folder for what is downloaded once."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "interlock"
