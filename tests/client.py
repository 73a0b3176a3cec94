"""Makes the client that blocks from the one that is awaited: `python -m tests.client`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "clients" / "python" / "interlock_client"
TARGET = FOLDER / "_sync.py"
HEAD = '"""The client that blocks, made from `_async.py` by `python -m tests.client`."""\n'
WORDS = (
    ("AsyncIterator", "Iterator"),
    ("AsyncClient", "Client"),
    ("AsyncInterlock", "Interlock"),
    ("asyncio", "time"),
    ("__aenter__", "__enter__"),
    ("__aexit__", "__exit__"),
    ("aiter_lines", "iter_lines"),
    ("aclose", "close"),
    ("aread", "read"),
)


def blocking() -> str:
    """Return the source of the client that blocks."""
    source = (FOLDER / "_async.py").read_text()
    source = HEAD + source.partition('"""\n')[2]
    source = re.sub(r"\basync (def|with|for)\b", r"\1", source)
    source = re.sub(r"\bawait ", "", source)
    for word, other in WORDS:
        source = re.sub(rf"\b{word}\b", other, source)
    for command in (["check", "--fix", "--quiet"], ["format", "--quiet"]):
        ruff = [str(Path(sys.executable).with_name("ruff")), *command]
        done = subprocess.run(
            [*ruff, "--stdin-filename", str(TARGET), "-"], input=source, capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        source = done.stdout
    return source


if __name__ == "__main__":
    TARGET.write_text(blocking())
