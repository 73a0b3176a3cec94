"""The compose file, really brought up: a short evening against containers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from ops.embedded.keys import add_key
from ops.embedded.process import free_port
from ops.policies import DEFAULT, read_policy
from services.kit.web import ROLES
from tests.engines import KAFKA_IMAGE, POSTGRES_IMAGE, docker_client, missing_images
from tests.journey import LEASE_S, wait_for

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]
BASE_IMAGE = "python:3.11-slim-bookworm"
SERVICES = ("detector", "publisher", "scheduler", "sandbox")


def why_not() -> str:
    """Return why the containers cannot be tried here; empty where they can."""
    client = docker_client()
    if client is None:
        return "no Docker engine answers"
    try:
        if missing := missing_images(client, BASE_IMAGE, KAFKA_IMAGE, POSTGRES_IMAGE):
            return f"Docker lacks {', '.join(missing)}"
    finally:
        client.close()
    if subprocess.run(
        ["docker", "compose", "version"], capture_output=True, check=False
    ).returncode:
        return "Docker has no compose"
    return ""


class Compose:
    """The compose project under a name of its own."""

    def __init__(self, folder: Path, repository: Path) -> None:
        self.repository = repository
        self.ports = {name: free_port() for name in SERVICES}
        keys = folder / "keys.json"
        self.keys = {role: add_key(keys, name=role, roles=(role,)) for role in ROLES}
        keys.chmod(0o644)  # Compose mounts a file secret as it is; the services are not root.
        accounts = {
            "social": {
                "channel": "mastodon",
                "url": "http://sandbox:8000",
                "token": "n",
                "updates": "{}",
                "languages": ["en"],
            }
        }
        (folder / "accounts.yaml").write_text(yaml.safe_dump({"accounts": accounts}))
        self.env = {
            **os.environ,
            **{f"{name.upper()}_PORT": str(port) for name, port in self.ports.items()},
            "POSTGRES_PASSWORD": uuid.uuid4().hex,
            "KEYS_FILE": str(keys),
            "ACCOUNTS_FILE": str(folder / "accounts.yaml"),
            "COMPOSE_PROJECT_NAME": f"interlock-test-{uuid.uuid4().hex[:8]}",
        }

    def run(self, *words: str) -> str:
        command = ["docker", "compose", "--profile", "sandbox", *words]
        done = subprocess.run(
            command, cwd=self.repository, env=self.env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (
            f"{' '.join(words)}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        )
        return done.stdout

    def client(self, service: str, role: str = "viewer") -> httpx.Client:
        headers = {"authorization": f"Bearer {self.keys[role]}"}
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.ports[service]}", headers=headers, timeout=30
        )


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Compose]:
    if why := why_not():
        pytest.skip(why)
    made = Compose(tmp_path_factory.mktemp("compose"), repository)
    try:
        made.run("up", "--build", "--wait", "--wait-timeout", "300", "--quiet-pull")
        yield made
    finally:
        made.run("down", "--volumes", "--timeout", "5")


def test_an_evening_on_containers(compose: Compose) -> None:
    policy = read_policy(DEFAULT).model_dump(mode="json")
    with compose.client("detector", "admin") as admin:
        admin.put("/v1/policy", json=policy).raise_for_status()
    with compose.client("sandbox") as sandbox:
        _play(compose, sandbox)


def _play(compose: Compose, sandbox: httpx.Client) -> None:
    def seen(what: str) -> list[dict[str, Any]]:
        return [s for s in sandbox.get("/sandbox/record").json() if s["what"] == what]

    with compose.client("scheduler", "marketing") as marketing:
        campaign = marketing.post(
            "/v1/campaigns", json={"name": "c", "labels": {"network": "n"}}
        ).json()
        posts = [
            {
                "account": "social",
                "text": f"{line} {n}",
                "due_at": _in(n / 4),
                "labels": {"line": line},
            }
            for n in range(24)
            for line in ("coast", "valley")
        ]
        marketing.post(
            f"/v1/campaigns/{campaign['campaign_id']}/posts", json=posts
        ).raise_for_status()
    wait_for("the first offers", lambda: len(seen("published")) >= 4)
    event = {"specversion": "1.0", "id": "e", "source": "/s", "type": "interlock.disruption.v1"}
    event["data"] = {
        "disruption_id": "d",
        "network": "n",
        "status": "opened",
        "title": "Trains stand",
        "labels": {"line": "coast"},
    }  # type: ignore[assignment]
    with compose.client("detector", "emitter") as emitter:
        headers = {"content-type": "application/cloudevents+json"}
        emitter.post("/v1/events", content=json.dumps(event), headers=headers).raise_for_status()
    acknowledged_s = time.monotonic()  # Containers share this machine's clock.
    wait_for("the update", lambda: [s for s in seen("published") if s["key"].startswith("upd-")])
    wait_for("the take-back", lambda: seen("deleted"))
    wait_for(
        "the valley's last", lambda: [s for s in seen("published") if s["text"] == "valley 23"]
    )
    late = [
        s
        for s in seen("published")
        if s["text"].startswith("coast") and s["at_s"] > acknowledged_s + LEASE_S
    ]
    assert late == []
    assert "uid=10001" in compose.run("exec", "-T", "publisher", "id")


def _in(seconds: float) -> str:
    return datetime.fromtimestamp(time.time() + seconds, UTC).isoformat()


def test_the_compose_file_has_no_default_secret(repository: Path) -> None:
    if shutil.which("docker") is None:
        text = (repository / "docker-compose.yml").read_text()
        assert text.count("${POSTGRES_PASSWORD:?") == 2
        return
    env = {k: v for k, v in os.environ.items() if k != "POSTGRES_PASSWORD"}
    done = subprocess.run(
        ["docker", "compose", "config"],
        cwd=repository,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
