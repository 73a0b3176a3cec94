"""A way to a server that can freeze: what is connected hears nothing more, as where a host has lost its power."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

CHUNK = 65_536


class Way:
    """What goes through it; connections that are made behind `freeze()` go through again."""

    def __init__(self) -> None:
        self.port, self._pumps = 0, set[asyncio.Task[None]]()

    def freeze(self) -> None:
        """Forward nothing more of what is connected now, and close nothing."""
        for pump in self._pumps:
            pump.cancel()

    def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pump = asyncio.create_task(self._pump(reader, writer))
        self._pumps.add(pump)
        pump.add_done_callback(self._pumps.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def a_way_to(port: int) -> AsyncIterator[Way]:
    """Open a way to a port of this host, on a port of its own."""
    way, ends = Way(), list[asyncio.StreamWriter]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        beyond, to = await asyncio.open_connection("127.0.0.1", port)
        ends.extend((writer, to))
        way.forward(reader, to)
        way.forward(beyond, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    way.port = server.sockets[0].getsockname()[1]
    yield way
    server.close()
    way.freeze()
    for end in ends:
        end.close()
