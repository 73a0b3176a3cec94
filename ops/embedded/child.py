"""The step between a supervisor and its child: die with the parent, and never run as root.

Run as `python -I child.py SIGNAL as-is|not-root COMMAND…`. It asks the kernel for SIGNAL when the
parent dies (prctl(2), PR_SET_PDEATHSIG), where wanted maps root to an ordinary user in a user
namespace of its own (PostgreSQL refuses root), and becomes the command.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
CLONE_NEWUSER = 0x10000000
INSIDE_ID = 1000
CANNOT = 71  # EX_OSERR


def main() -> None:
    signal_name, user, *command = sys.argv[1:]
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if user == "not-root" and os.geteuid() == 0:
        _leave_root(libc)
    if libc.prctl(PR_SET_PDEATHSIG, signal.Signals[signal_name], 0, 0, 0) != 0:
        sys.exit(CANNOT)
    if os.getppid() != parent:
        sys.exit(CANNOT)  # It died before the kernel was asked.
    os.execv(command[0], command)  # noqa: S606  # That is what this file is for.


def _leave_root(libc: ctypes.CDLL) -> None:
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWUSER) != 0:
        print("cannot make a user namespace:", os.strerror(ctypes.get_errno()), file=sys.stderr)
        sys.exit(CANNOT)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{INSIDE_ID} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{INSIDE_ID} {gid} 1")


main()
