"""The README's commands are run: what a newcomer copies must work."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from ops.embedded.system import System
from services.cli import app
from tests.journey import wait_for


def blocks(repository: Path) -> list[str]:
    return re.findall(r"```console\n(.*?)```", (repository / "README.md").read_text(), re.DOTALL)


def test_the_curl_commands_do_what_they_say(system: System, repository: Path) -> None:
    script = blocks(repository)[1]
    first, rest = script.split('curl -X POST "$SCHEDULER/v1/campaigns/$CAMPAIGN/posts"')
    pick = 'import json, sys; print(json.load(sys.stdin)["campaign_id"])'
    first = first.replace("curl -X", "CAMPAIGN=$(curl -fsS -X").rstrip()
    lines = f'{first} | python3 -c {shlex.quote(pick)})\ncurl -X POST "$SCHEDULER/v1/campaigns/$CAMPAIGN/posts"{rest}'
    env = {
        **os.environ,
        **{name.upper(): system.address(name) for name in ("detector", "scheduler", "publisher")},
        **{role.upper(): key for role, key in system.keys.items()},
    }
    command = [
        "bash",
        "-euo",
        "pipefail",
        "-c",
        lines.replace("curl -X", "curl -fsS -X").replace('curl "', 'curl -fsS "'),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert '"open_holds"' in done.stdout
    with system.client("detector", "operations") as client:
        reported = {f'{{network="northlink",line="{line}"}}' for line in ("coast", "valley")}
        held = {'{line="harbour"}', *reported}
        found = wait_for(
            "the holds",
            lambda: _of(client.get("/v1/holds").json(), held),
        )
        for hold in found:
            client.post(
                f"/v1/holds/{hold['hold_id']}/release", json={"reason": "test"}
            ).raise_for_status()


def _of(holds: list[dict[str, str]], wanted: set[str]) -> list[dict[str, str]]:
    found = [hold for hold in holds if hold["matchers"] in wanted]
    return found if {hold["matchers"] for hold in found} == wanted else []


@pytest.mark.parametrize(
    "word", ["demo", "test", "up", "down", "status", "logs", "lint", "bench", "interlock"]
)
def test_run_knows_the_words_it_explains(repository: Path, word: str) -> None:
    text = (repository / "run").read_text()
    assert re.search(rf"^[a-z |]*\b{word}\b[a-z |]*\)", text, re.MULTILINE)


def test_run_alone_explains_and_an_unknown_word_fails(repository: Path) -> None:
    alone = subprocess.run(["./run"], cwd=repository, capture_output=True, text=True, check=False)
    assert (alone.returncode, "./run demo" in alone.stdout) == (0, True)
    unknown = subprocess.run(
        ["./run", "fly"], cwd=repository, capture_output=True, text=True, check=False
    )
    assert (unknown.returncode, "there is no 'fly'" in unknown.stderr) == (1, True)


def test_the_readme_names_commands_that_are_there(repository: Path) -> None:
    groups = {
        group.name: {c.name for c in group.typer_instance.registered_commands}
        for group in app.registered_groups
        if group.typer_instance is not None
    }
    alone = {c.name or (c.callback.__name__ if c.callback else "") for c in app.registered_commands}
    for words in re.findall(
        r"`interlock ([a-z]+)(?: ([a-z]+))?", (repository / "README.md").read_text()
    ):
        assert words[0] in alone or words[1] in groups.get(words[0], set()), words


def test_every_link_of_the_readme_leads_somewhere(repository: Path) -> None:
    for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", (repository / name).read_text()):
            assert (repository / link).exists(), link
