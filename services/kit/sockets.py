"""Connections whose other end is gone: the kernel gives them up in seconds, not in a quarter of an hour."""

from __future__ import annotations

import socket
from typing import Any, Final

GONE_S: Final = 4  # What is sent is acknowledged by then, or the host is gone.
_OPTIONS: Final = [  # Linux has all of them.
    (level, getattr(socket, name), value)
    for level, name, value in (
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", GONE_S // 2),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 1),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", GONE_S * 1_000),
    )
    if hasattr(socket, name)
]


def watch(transport: Any) -> None:
    """Let the kernel ask, on an asyncio transport, whether the other end is there, while we wait for its answer.

    A server that is slow is there: its kernel acknowledges what it is sent.
    """
    connected = transport.get_extra_info("socket")
    if connected.family != socket.AF_UNIX:
        for level, option, value in _OPTIONS:
            connected.setsockopt(level, option, value)
