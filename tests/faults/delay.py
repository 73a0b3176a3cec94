"""Packets that come late and out of their order: the kernel hands them to us (NFQUEUE) and waits for our verdict.

Messages are those of linux/netfilter/nfnetlink_queue.h. It is what `tc netem delay` does, which many kernels lack.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import os
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Final

NETLINK_NETFILTER, QUEUES = 12, 3  # NFNL_SUBSYS_QUEUE.
PACKET, VERDICT, CONFIG = 0, 1, 2
PACKET_HDR, VERDICT_HDR = 1, 2  # Attributes of a packet and of a verdict.
CFG_CMD, CFG_PARAMS, CFG_LENGTH = 1, 2, 3  # Of a configuration.
BIND, COPY_META, ACCEPT = 1, 1, 1
REQUEST: Final = 1  # NLM_F_REQUEST.
HEAD: Final = struct.Struct("=IHHII")  # Of a netlink message.
FAMILY: Final = struct.Struct("!BBH")  # nfgenmsg: family, version, the queue's number.
ATTRIBUTE: Final = struct.Struct("=HH")
MOST_WAITING: Final = 50_000  # The kernel drops what is more.
BUFFER_BYTES: Final = 16 * 1024**2
SO_RCVBUFFORCE: Final = 33
IDLE_S: Final = 0.2


class Delay:
    """A queue of the kernel: each packet goes on after `base_s`, give or take as much as `jitter_s`."""

    def __init__(self, number: int, *, base_s: float, jitter_s: float) -> None:
        self.number, self.base_s, self.jitter_s = number, base_s, jitter_s
        self._ended = threading.Event()
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        self._socket.bind((0, 0))
        self._ask(CONFIG, CFG_CMD, struct.pack("!BBH", BIND, 0, socket.AF_INET))
        self._ask(CONFIG, CFG_PARAMS, struct.pack("!IB", 0, COPY_META))
        self._ask(CONFIG, CFG_LENGTH, struct.pack("!I", MOST_WAITING))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let all that wait go on; whoever asked for packets to come here has ended that before."""
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        waiting: list[tuple[float, int]] = []
        while not self._ended.is_set():
            now_s = time.monotonic()
            while waiting and waiting[0][0] <= now_s:
                self._let_go(heapq.heappop(waiting)[1])
            rest_s = min(IDLE_S, waiting[0][0] - now_s) if waiting else IDLE_S
            if select.select([self._socket], [], [], rest_s)[0]:
                for packet in self._read():
                    late_s = self.base_s + random.uniform(-self.jitter_s, self.jitter_s)
                    heapq.heappush(waiting, (time.monotonic() + late_s, packet))
        for _, packet in waiting:
            self._let_go(packet)
        while select.select([self._socket], [], [], 0)[0]:
            for packet in self._read():
                self._let_go(packet)

    def _read(self) -> Iterator[int]:
        """Yield the numbers of packets that came."""
        try:
            data = self._socket.recv(65_536)
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # Then some are lost, as a network loses them.
                raise
            return
        while len(data) >= HEAD.size:
            length, kind, *_ = HEAD.unpack_from(data)
            if kind == QUEUES << 8 | PACKET:
                yield from _packet_in(data[HEAD.size + FAMILY.size : length])
            data = data[_padded(length) :]

    def _let_go(self, packet: int) -> None:
        with contextlib.suppress(ConnectionRefusedError):  # It has been dropped meanwhile.
            self._ask(VERDICT, VERDICT_HDR, struct.pack("!II", ACCEPT, packet))

    def _ask(self, what: int, name: int, value: bytes) -> None:
        attribute = ATTRIBUTE.pack(ATTRIBUTE.size + len(value), name) + value
        body = FAMILY.pack(socket.AF_UNSPEC, 0, self.number) + attribute.ljust(
            _padded(len(attribute)), b"\0"
        )
        head = HEAD.pack(HEAD.size + len(body), QUEUES << 8 | what, REQUEST, 0, 0)
        self._socket.sendto(head + body, (0, 0))


def _packet_in(attributes: bytes) -> Iterator[int]:
    while len(attributes) >= ATTRIBUTE.size:
        length, name = ATTRIBUTE.unpack_from(attributes)
        if name == PACKET_HDR:
            yield struct.unpack_from("!I", attributes, ATTRIBUTE.size)[0]
        attributes = attributes[_padded(length) :]


def _padded(length: int) -> int:
    return (length + 3) & ~3


def kernel_has_it() -> bool:
    """Say whether the kernel hands packets out."""
    return os.path.exists("/proc/net/netfilter/nfnetlink_queue")  # noqa: PTH110
