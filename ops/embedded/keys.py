"""The keys file: names, roles and SHA-256 of API keys. The keys themselves are shown once."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from services.kit.web import ROLES

KEY_BYTES = 32


def add_key(
    path: Path,
    *,
    name: str,
    roles: tuple[str, ...],
    networks: tuple[str, ...] = (),
    development: bool = False,
) -> str:
    """Add a key and return it; the file keeps its hash. Raises ValueError for a name that is there."""
    if unknown := set(roles) - set(ROLES):
        raise ValueError(f"there is no role {', '.join(sorted(unknown))}: {', '.join(ROLES)}")
    keys = read_keys(path)
    if any(entry["name"] == name for entry in keys):
        raise ValueError(f"{path} has a key named {name} already: remove it first")
    key = f"ilk_{secrets.token_urlsafe(KEY_BYTES)}"
    entry: dict[str, Any] = {
        "name": name,
        "sha256": hashlib.sha256(key.encode()).hexdigest(),
        "roles": list(roles),
        "networks": list(networks),
    }
    if development:
        entry["development"] = True
    _write(path, [*keys, entry])
    return key


def remove_key(path: Path, name: str) -> bool:
    """Remove a key; False where there is none of this name."""
    keys = read_keys(path)
    left = [entry for entry in keys if entry["name"] != name]
    _write(path, left)
    return len(left) < len(keys)


def read_keys(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a keys file; none where there is no file."""
    if not path.exists():
        return []
    found: list[dict[str, Any]] = json.loads(path.read_text())["keys"]
    return found


def _write(path: Path, keys: list[dict[str, Any]]) -> None:
    fresh = path.with_suffix(".part")
    with open(os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123
        json.dump({"keys": keys}, file, indent=2)
    fresh.replace(path)  # Services read it at any moment: it is whole or it is the old one.
