"""aiokafka as it is mended: a host that is gone is given up, and one that is there is watched."""

from __future__ import annotations

import asyncio
import socket
import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.conn import AIOKafkaConnection, create_conn

from services.kit import mends
from services.kit.sockets import GONE_S


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mends, "CONNECT_S", 0.1)
    monkeypatch.setattr(mends, "FIRST_ANSWER_S", 0.1)
    monkeypatch.setattr(mends, "_away_until_s", {})


async def ask(port: int) -> None:
    async with asyncio.timeout(10):
        await create_conn("127.0.0.1", port, request_timeout_ms=600_000)


@pytest.mark.usefixtures("hurried")
async def test_a_host_that_is_gone_is_given_up_and_not_asked_again_at_once() -> None:
    """Half a minute it was waited for, and no other broker could be connected to meanwhile."""
    with socket.socket() as full:  # Its queue takes one, and nobody answers the next.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            with pytest.raises(TimeoutError, match="does not answer"):
                await ask(port)
            with pytest.raises(TimeoutError, match="a moment ago"):
                await ask(port)


@pytest.mark.usefixtures("hurried")
async def test_a_host_that_is_there_and_slow_is_asked_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for _ in range(2):
            with pytest.raises(TimeoutError) as found:
                await ask(silent.getsockname()[1])
            assert "moment ago" not in str(found.value)
    assert not mends._away_until_s


@pytest.mark.usefixtures("hurried")
async def test_a_process_that_stood_still_itself_does_not_believe_that_others_are_gone() -> None:
    """All brokers were gone for it then, and a publisher that was joining its group ended itself."""
    with socket.create_server(("127.0.0.1", 0)) as there:
        asyncio.get_running_loop().call_soon(time.sleep, 4 * mends.CONNECT_S)
        with pytest.raises(TimeoutError) as found:
            await ask(there.getsockname()[1])
    assert "does not answer" not in str(found.value)
    assert not mends._away_until_s


async def test_a_connection_ends_when_what_is_sent_is_not_acknowledged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as made:

        async def connect(_: Any) -> str:
            return "as theirs"

        monkeypatch.setattr(mends, "_connect", connect)
        writer = SimpleNamespace(transport=SimpleNamespace(get_extra_info=lambda _: made))
        one: Any = SimpleNamespace(_writer=writer, host="a", port=1)
        assert await AIOKafkaConnection.connect(one) == "as theirs"
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == GONE_S * 1_000
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == GONE_S // 2
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
