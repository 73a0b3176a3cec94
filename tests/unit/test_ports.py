"""Ports of the embedded system: none is handed out twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.embedded import process
from ops.embedded.process import free_port


def test_a_port_that_is_spoken_for_is_not_handed_out_again() -> None:
    """The kernel gave the same free port twice: Kafka was told to listen on it for two things."""
    first = free_port()
    assert free_port(first) == first
    assert free_port(first, but=[first]) != first


def test_no_outgoing_connection_is_given_the_port_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its choice and Kafka's start the kernel may give it to a client, and Kafka cannot listen."""
    range_file = tmp_path / "range"
    range_file.write_text("20000\t60999\n")
    monkeypatch.setattr(process, "OUTGOING", range_file)
    assert all(10_000 <= free_port() < 20_000 for _ in range(50))


@pytest.mark.parametrize("content", ["1024\t65535\n", ""])
def test_where_all_ports_are_outgoing_ones_the_kernel_chooses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    range_file = tmp_path / "range"
    range_file.write_text(content)
    monkeypatch.setattr(process, "OUTGOING", range_file)
    assert free_port() > 1_023
