"""What real connections do to a request: a server that stands before another, with faults to switch on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import uvicorn
from fastapi import FastAPI

Fault = Literal[
    "none", "slow", "429", "500 before", "500 behind", "reset before", "reset behind",
    "answer lost", "nonsense", "token expired",
]  # fmt: skip
FAULTS: tuple[Fault, ...] = (
    "none", "slow", "429", "500 before", "500 behind", "reset before", "reset behind",
    "answer lost", "nonsense", "token expired",
)  # fmt: skip
SLOW_S = 0.2
INSTEAD = {  # Of the network's own answer; the second as a portal or a proxy has it.
    "500 behind": b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n",
    "nonsense": b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>",
}


class Faulty:
    """Stands before a server; `fault` happens to the next request that `hits`, once."""

    def __init__(self, port: int) -> None:
        self.port, self.fault, self.hits = port, "none", b"POST"
        self.address = ""
        self.asked = 0
        self.lost: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = 0
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                if not await self._answer(head, await reader.readexactly(length), writer):
                    return
        writer.close()

    async def _answer(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        fault = "none"
        if head.startswith(self.hits):
            self.asked += 1
            fault, self.fault = self.fault, "none"
        if fault == "slow":
            await asyncio.sleep(SLOW_S)
        if fault == "reset before":
            return _reset(writer)
        said = {"429": b"429 Too Many Requests", "500 before": b"500 Internal Server Error"}
        if fault in said:
            after = b"retry-after: 1\r\n" if fault == "429" else b""
            writer.write(
                b"HTTP/1.1 " + said[fault] + b"\r\n" + after + b"content-length: 0\r\n\r\n"
            )
            return True
        answer = await self._forward(head, body)
        if fault == "reset behind":
            return _reset(writer)
        if fault == "answer lost":
            self.lost.append(writer)  # Open, and silent.
            return False
        writer.write(INSTEAD.get(fault, answer))
        await writer.drain()
        return True

    async def _forward(self, head: bytes, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = [n for n in head.split(b"\r\n") if not n.lower().startswith(b"connection:")]
        writer.write(b"\r\n".join([lines[0], b"connection: close", *lines[1:]]) + body)
        answer = await reader.read()
        writer.close()
        return answer.replace(b"connection: close\r\n", b"")


def _reset(writer: asyncio.StreamWriter) -> bool:
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[Faulty]:
    """Serve a network behind its faults; both have ports of their own."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="error", lifespan="off", date_header=False
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    began_s = time.monotonic()
    while not server.started:
        assert time.monotonic() - began_s < 10
        await asyncio.sleep(0.02)
    async with before(server.servers[0].sockets[0].getsockname()[1]) as faulty:
        yield faulty
    server.should_exit = True
    await task


@asynccontextmanager
async def before(port: int) -> AsyncIterator[Faulty]:
    """Stand before a server of this machine."""
    faulty = Faulty(port)
    proxy = await asyncio.start_server(faulty.serve, "127.0.0.1", 0)
    faulty.address = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    yield faulty
    for writer in faulty.lost:
        writer.close()
    proxy.close()
