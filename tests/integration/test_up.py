"""`interlock up` as a newcomer runs it: a second one, kill -9, the next one, and down."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ops.embedded.files import development_keys
from ops.embedded.process import CannotStart, free_port, must_be_free, must_have_space
from ops.embedded.system import System, read_state
from tests.journey import wait_for

STARTED_S = 90.0


class Up:
    """One data folder, and `interlock` commands on it."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.output = folder / "out"
        self.process: subprocess.Popen[bytes] | None = None
        without = ("INTERLOCK_KAFKA", "INTERLOCK_DATABASE", "INTERLOCK_DATA")
        self.env = {k: v for k, v in os.environ.items() if k not in without}

    def start(self) -> None:
        with self.output.open("wb") as out:
            command = [sys.executable, "-m", "services.cli", "up", "--data", str(self.data)]
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=self.env)
        wait_for("interlock up", self._ready, patience_s=STARTED_S)

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.output.read_text()
        return "Interlock is ready" in self.output.read_text()

    def interlock(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "services.cli", *words, "--data", str(self.data)]
        return subprocess.run(command, capture_output=True, text=True, env=self.env, check=False)

    def children(self) -> list[int]:
        pids: list[int] = list(read_state(self.data).get("children", {}).values())
        return [pid for pid in pids if Path(f"/proc/{pid}/stat").exists() and not _zombie(pid)]


def _zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except OSError:
        return True


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    made = Up(tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait()
        wait_for("its children to end", lambda: not made.children())


def test_up_down_and_what_survives_kill_9(up: Up) -> None:
    up.start()
    assert up.interlock("status").returncode == 0
    again = up.interlock("up")
    assert (again.returncode, "already" in again.stderr) == (1, True)
    keys = development_keys(up.data)
    assert (up.data / "development-keys.json").stat().st_mode & 0o777 == 0o600
    headers = {"authorization": f"Bearer {keys['marketing']}"}
    scheduler = read_state(up.data)["addresses"]["scheduler"]
    httpx.post(
        f"{scheduler}/v1/campaigns", json={"name": "kept"}, headers=headers
    ).raise_for_status()
    children = up.children()
    assert len(children) == 6

    assert up.process is not None
    up.process.kill()
    up.process.wait()
    wait_for("all children to end with it", lambda: not up.children())

    up.start()
    scheduler = read_state(up.data)["addresses"]["scheduler"]
    kept = httpx.get(f"{scheduler}/v1/campaigns", headers=headers).raise_for_status().json()
    assert [campaign["name"] for campaign in kept] == ["kept"]
    os.kill(read_state(up.data)["children"]["detector"], signal.SIGKILL)
    wait_for("the detector again", lambda: "detector had ended" in up.output.read_text())
    wait_for("all ready", lambda: up.interlock("status").returncode == 0)
    assert "folded" in up.interlock("logs", "detector", "-n", "500").stdout

    assert up.interlock("down").stdout == "stopped\n"
    assert up.process.wait(10) == 0
    assert up.children() == []
    assert "nothing runs" in up.interlock("down").stdout


def test_a_taken_port_a_full_disk_and_stale_data_are_named(tmp_path: Path) -> None:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        with pytest.raises(CannotStart, match=r"for publisher is taken: .* `ss -ltnp"):
            must_be_free(s.getsockname()[1], what="publisher")
    must_be_free(free_port(), what="publisher")
    with pytest.raises(CannotStart, match="make room, or name a folder on another disk"):
        must_have_space(tmp_path, needed_bytes=10**18)
    (tmp_path / "layout").write_text("0 of another age\n")
    with pytest.raises(CannotStart, match="written by another version"):
        System(tmp_path, progress=lambda _: None).__enter__()


def test_without_a_network_the_download_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ops.embedded import kafka

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(CannotStart, match="Check the network and the proxy settings"):
        kafka.jars(lambda _: None)
    assert not list((tmp_path / "interlock").glob("kafka-*/*.jar"))
