"""The holds there were before our first fence passed: known by their keys, read only if still open.

`ops.holds` keeps every hold for ever, opened and released. Nobody needs the words of those that are
over: of a million records a handful is read. Our own echo says that all before it was seen, and until
then no offer goes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

OPENED: Final = b"opened/"
RELEASED: Final = b"released/"
Headers = Sequence[tuple[str, bytes]]
Bytes = tuple[Headers, bytes | None]


class History:
    """Facts of `ops.holds` by their keys, in any order: releasing wins."""

    def __init__(self) -> None:
        self._open: dict[bytes, Bytes] = {}
        self.released: set[str] = set()

    def take(self, key: bytes, headers: Headers, value: bytes | None) -> bool:
        """Take a record by its key; False where it is no hold's."""
        if key.startswith(RELEASED):
            hold = key.removeprefix(RELEASED)
            self._open.pop(hold, None)
            self.released.add(hold.decode())
            return True
        if not key.startswith(OPENED):
            return False
        hold = key.removeprefix(OPENED)
        if hold.decode() not in self.released:
            self._open[hold] = (headers, value)
        return True

    def still_open(self) -> dict[str, Bytes]:
        """Return what is open, to be read now, by the hold's id."""
        return {hold.decode(): known for hold, known in self._open.items()}
