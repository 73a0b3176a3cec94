"""What only root may do to a host: cut the network, fill a disk, set a process's clock. All of it is private.

`enter` puts this process, and what it starts, into a network and a mount namespace of its own: nothing here touches
the machine. Where that is not allowed, or a tool is missing, `Host` says so and the faults are left out.

`tc netem` is not in every kernel: nftables drop packets to a port, all or some, which is a partition or loss, and
what comes late goes by a queue of the kernel's (`delay.py`).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import count, product
from pathlib import Path
from typing import Final

from tests.faults.delay import Delay, kernel_has_it

CLONE_NEWNET, CLONE_NEWNS = 0x40000000, 0x00020000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
FAKETIME: Final = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
TABLE: Final = "inet interlock_faults"
DISK_BYTES: Final = 2 * 1024**3
BLOCK: Final = 1024**2


class Host:
    """The host as a campaign may hurt it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.missing = folder, list[str]()
        self._disks: list[Path] = []
        self._queues = count()
        self.can_cut = self.can_fill = self.can_delay = False
        self.can_jump = FAKETIME.exists()
        if not self.can_jump:
            self.missing.append("clock jumps: libfaketime is not installed")

    def enter(self) -> None:
        """Enter namespaces of our own. Call it before there are threads or sockets."""
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET | CLONE_NEWNS) != 0:
            why = os.strerror(ctypes.get_errno())
            self.missing.append(f"network and disk faults: no namespaces ({why})")
            return
        _loopback_up()
        _run("mount", "--make-rprivate", "/")
        self.can_fill = True
        self.can_delay = shutil.which("iptables") is not None and kernel_has_it()
        if not self.can_delay:
            self.missing.append("late packets: no iptables, or a kernel that hands out no packets")
        if shutil.which("nft") is None:
            self.missing.append("network faults: nft is not installed")
            return
        _run("nft", "add", "table", *TABLE.split())
        _run("nft", "add", "chain", *TABLE.split(), "input", "{ type filter hook input priority 0; }")  # fmt: skip
        self.can_cut = True

    def disk(self, name: str) -> None:
        """Give a folder a disk of its own, which can be full."""
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        self._disks.append(path)
        _run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "tmpfs", str(path))

    def close(self) -> None:
        """Take the disks away; what else is ours ends with this process."""
        for path in self._disks:
            _run("umount", "--lazy", str(path))
        self._disks.clear()

    def fill(self, name: str) -> None:
        """Leave no byte free."""
        with (self.folder / name / "ballast").open("wb", buffering=0) as out:
            try:
                while out.write(bytes(BLOCK)) == BLOCK:
                    pass
            except OSError:
                return

    def free(self, name: str) -> None:
        (self.folder / name / "ballast").unlink(missing_ok=True)

    def cut(self, ports: Iterable[int], *, percent: int = 100) -> None:
        """Drop packets from and to these ports: all of them, or some."""
        some = [] if percent == 100 else ["numgen", "random", "mod", "100", "<", str(percent)]
        numbers = "{" + ",".join(str(port) for port in ports) + "}"
        for side in ("dport", "sport"):
            _run("nft", "add", "rule", *TABLE.split(), "input", "tcp", side, numbers, *some, "drop")

    def mend(self) -> None:
        """Let everything through again."""
        _run("nft", "flush", "chain", *TABLE.split(), "input")

    @contextmanager
    def delayed(self, ports: Iterable[int], *, base_s: float, jitter_s: float) -> Iterator[None]:
        """Let packets from and to these ports come later, and out of their order."""
        number = next(self._queues)
        to = ("-j", "NFQUEUE", "--queue-num", str(number))
        with closing(Delay(number, base_s=base_s, jitter_s=jitter_s)), ExitStack() as stack:
            for side, port in product(("--dport", "--sport"), ports):
                rule = ("INPUT", "-p", "tcp", side, str(port), *to)
                _run("iptables", "--wait", "-A", *rule)
                stack.callback(_run, "iptables", "--wait", "-D", *rule)
            yield

    def clock_of(self, name: str) -> list[str]:
        """Return the variables by which a process takes its wall clock from a file of ours."""
        if not self.can_jump:
            return []
        self.set_clock(name, 0)
        return [
            f"LD_PRELOAD={FAKETIME}", f"FAKETIME_TIMESTAMP_FILE={self.folder / name}.clock",
            "FAKETIME_CACHE_DURATION=1", "FAKETIME_DONT_FAKE_MONOTONIC=1",
        ]  # fmt: skip

    def set_clock(self, name: str, ahead_s: int) -> None:
        """Let a process's wall clock be so far ahead; its monotonic clock goes on as it was."""
        fresh = self.folder / f"{name}.clock.part"
        fresh.write_text(f"{ahead_s:+d}s")
        fresh.replace(self.folder / f"{name}.clock")


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        known = fcntl.ioctl(s, SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", known)[1]
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
