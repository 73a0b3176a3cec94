"""How a command ends when it cannot do what it was asked for."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer


def fail(why: str) -> NoReturn:
    """End with a reason, in words."""
    print(f"interlock: {why}", file=sys.stderr, flush=True)
    raise typer.Exit(1)
