"""Ports of the embedded system: none is handed out twice."""

from __future__ import annotations

from ops.embedded.process import free_port


def test_a_port_that_is_spoken_for_is_not_handed_out_again() -> None:
    """The kernel gave the same free port twice: Kafka was told to listen on it for two things."""
    first = free_port()
    assert free_port(first) == first
    assert free_port(first, but=[first]) != first
