"""What is mended in aiokafka 0.14, around methods of its own. Each of these goes when it is mended there."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.errors import KafkaConnectionError, KafkaError

from services.kit.sockets import watch

CONNECT_S: Final = 2.0
CONNECT_LOOKS: Final = 20
FIRST_ANSWER_S: Final = 10.0  # What versions it speaks, and who we are.
AWAY_S: Final = 5.0  # So long a host that did not answer is not asked again.
_away_until_s: dict[tuple[str, int], float] = {}


async def _connect_in_time(self: Any) -> Any:
    """Connect as aiokafka does, to a host that is there; one that is gone is given up.

    It waited as long as for an answer, half a minute, while no other connection could be made; and as long for the
    answers of a host that had lost its power.
    """
    host = (self.host, self.port)
    if time.monotonic() < _away_until_s.get(host, 0):
        raise TimeoutError(f"{self.host} did not answer a moment ago")
    connecting = asyncio.ensure_future(_connect(self))
    try:
        for _ in range(
            CONNECT_LOOKS
        ):  # Of our own time: a process that stood still has waited for nobody.
            await asyncio.wait({connecting}, timeout=CONNECT_S / CONNECT_LOOKS)
            if connecting.done() or self._writer is not None:
                break
        else:
            _away_until_s[host] = time.monotonic() + AWAY_S
            raise TimeoutError(f"{self.host} does not answer")
        async with asyncio.timeout(FIRST_ANSWER_S):
            made = await connecting
    finally:
        connecting.cancel()
    watch(self._writer.transport)
    return made


def _send_or_lose(self: Any, request: Any, expect_response: bool = True) -> Any:  # As theirs.
    """Send as aiokafka does; a socket that was just closed is a lost connection, on uvloop too.

    uvloop raises RuntimeError there, of which aiokafka knows nothing (aio-libs/aiokafka, issue 1038): whichever
    task of a client met it ended by it, and the client never heard of a new leader or coordinator again.
    """
    try:
        return _send(self, request, expect_response)
    except RuntimeError as error:
        self.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"the connection to {self.host} broke: {error}") from error


async def _ask_or_look_anew(self: Any, node_id: Any, topics: Any) -> Any:  # As theirs.
    """Ask for offsets as aiokafka does; one who is not the leader (any more) is not asked again before one has looked.

    It asked the same one until its metadata were half a minute old: so long a detector stood still whose place was
    deleted while the leader changed.
    """
    try:
        return await _offsets(self, node_id, topics)
    except KafkaError:
        self._client.force_metadata_update()
        raise


_connect: Final[Any] = AIOKafkaConnection.connect
_send: Final[Any] = AIOKafkaConnection.send
_offsets: Final[Any] = Fetcher._proc_offset_request  # noqa: SLF001  # There is no other place.


def mend_aiokafka() -> None:
    """Put these in the place of aiokafka's own."""
    AIOKafkaConnection.connect = _connect_in_time  # type: ignore[method-assign]
    AIOKafkaConnection.send = _send_or_lose  # type: ignore[method-assign]
    Fetcher._proc_offset_request = _ask_or_look_anew  # type: ignore[method-assign]  # noqa: SLF001
