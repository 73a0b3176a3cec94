"""Schemathesis, unmodified, against every service's own document: no server error, nothing undocumented."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from ops.embedded.keys import add_key
from ops.embedded.system import SERVICES, System
from services.kit.web import ROLES
from tests.journey import wait_for

EXAMPLES = 6 if os.environ.get("INTERLOCK_LONG") else 2  # Of each kind and operation.
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_schema_conformance", "response_headers_conformance",
)  # fmt: skip


def test_no_service_answers_what_its_document_does_not_say(own_system: System) -> None:
    key = add_key(own_system.data / "keys.json", name="everybody", roles=tuple(ROLES))
    told = {name: run(own_system, name, key) for name in SERVICES}
    for name, (code, said) in told.items():
        print(name, *re.findall(r"\d+ generated.*", said))
        assert code == 0, said
    counts = {
        name: re.findall(r"(\d+) generated, \1 passed", said) for name, (_, said) in told.items()
    }
    assert all(int(count[0]) > 100 for count in counts.values()), counts


def run(system: System, service: str, key: str) -> tuple[int, str]:
    with system.client(service) as client:
        client.headers["authorization"] = f"Bearer {key}"
        wait_for("the key", lambda: client.get("/metrics").is_success)
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run",
        f"{system.address(service)}/openapi.json", "--header", f"Authorization: Bearer {key}",
        "--checks", ",".join(CHECKS), "--max-examples", str(EXAMPLES),
        "--exclude-path", "/v1/events/stream",  # It never ends.
        "--seed", "1", "--no-color",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=system.data)
    return done.returncode, done.stdout + done.stderr
