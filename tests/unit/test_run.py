"""`./run`, as far as it is more than a list of commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_the_python_behind_a_shim_is_named_and_not_the_shim(
    tmp_path: Path, repository: Path
) -> None:
    """With pyenv's shim each `./run` made the environment anew, also under a system that ran in it."""
    shim = tmp_path / "python3.11"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    shim.chmod(0o755)
    functions = (repository / "run").read_text().partition("\ncase ")[0]
    done = subprocess.run(
        ["bash", "-c", f"{functions}\nfind_python", str(repository / "run")],
        env=os.environ | {"INTERLOCK_PYTHON": str(shim)},
        cwd=repository, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == sys.executable
