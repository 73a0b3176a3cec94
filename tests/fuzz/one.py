"""`python -m tests.fuzz.one TARGET FOLDER [...]`: one target until it breaks or its time is up (libFuzzer's flags)."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(
    include=["services", "schemas", "ops", "tests.fuzz"], enable_loader_override=False
):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name].act)
    atheris.Fuzz()


main()
