"""Late packets, in a network of the test's own: the kernel's queue as `delay.py` speaks to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

NOT_HERE = 77
LATE_S = 0.02
PLAY = f"""
import pathlib, socket, sys, tempfile, threading, time
from tests.faults.host import Host

host = Host(pathlib.Path(tempfile.mkdtemp()))
host.enter()
if not host.can_delay:
    sys.exit({NOT_HERE})
server = socket.create_server(("127.0.0.1", 0))
port = server.getsockname()[1]

def echo():
    while True:
        with server.accept()[0] as other:
            while data := other.recv(1):
                other.sendall(data)

def round_trip_s(client):
    begun_s = time.monotonic()
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    return time.monotonic() - begun_s

threading.Thread(target=echo, daemon=True).start()
with socket.create_connection(("127.0.0.1", port)) as client:
    round_trip_s(client)
    with host.delayed([port], base_s={LATE_S}, jitter_s=0):
        print(min(round_trip_s(client) for _ in range(5)))
        client.sendall(b"y")
    assert client.recv(1) == b"y", "what waited was let go"
    print(min(round_trip_s(client) for _ in range(5)))
"""


def test_packets_come_late_while_they_are_delayed_and_all_of_them_come(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PLAY], cwd=repository, capture_output=True, text=True, check=False
    )
    if done.returncode == NOT_HERE:
        pytest.skip("this host lets nobody delay packets")
    assert done.returncode == 0, done.stderr
    late_s, after_s = map(float, done.stdout.split())
    assert late_s >= 2 * LATE_S, "each way is late"
    assert after_s < late_s
