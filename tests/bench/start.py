"""How long `interlock up` takes on warm data, and how much memory the idle services have."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from ops.embedded.screen import resident_mb
from ops.embedded.system import SERVICES, System

RUNS = 3
READY_AIM_S, MEMORY_AIM_MB = 10, 500


def measure() -> list[dict[str, Any]]:
    """Start it once cold and a few times warm."""
    with tempfile.TemporaryDirectory() as folder:
        took, memory = [], 0.0
        for _ in range(RUNS + 1):
            begun_s = time.monotonic()
            with System(Path(folder), progress=lambda _: None) as system:
                took.append(time.monotonic() - begun_s)
                time.sleep(5)
                memory = sum(resident_mb(system.children[name].pid) for name in SERVICES)
    warm = statistics.median(took[1:])
    return [
        {"what": "up on a new folder, to ready", "aim": "", "measured": f"{took[0]:.1f} s"},
        {
            "what": f"up on warm data, to ready, median of {RUNS}",
            "aim": f"< {READY_AIM_S} s",
            "measured": f"{warm:.1f} s",
            "met": warm < READY_AIM_S,
        },
        {
            "what": "resident memory of the three services together, idle",
            "aim": f"< {MEMORY_AIM_MB} MB",
            "measured": f"{memory:.0f} MB",
            "met": memory < MEMORY_AIM_MB,
        },
    ]
