"""What a new system is given to begin with: keys, accounts, operations systems, labels."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

import yaml

from ops.embedded.keys import add_key
from services.kit.web import ROLES

LABELS: Final = Path(__file__).parents[1] / "labels.yaml"


def development_keys(data: Path) -> dict[str, str]:
    """Return a key per role and one with all, made once; they work from loopback only."""
    path = data / "development-keys.json"
    if path.exists():
        kept: dict[str, str] = json.loads(path.read_text())
        return kept
    file = data / "keys.json"
    keys = {
        role: add_key(file, name=f"dev-{role}", roles=(role,), development=True) for role in ROLES
    }
    with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w") as out:  # noqa: PTH123
        json.dump(keys, out, indent=2)
    return keys


MARK: Final = "# Written by `interlock up` at each start; remove this line to make it yours.\n"


def make_accounts(data: Path, *, sandbox: str | None) -> None:
    """Write a file of channel accounts to begin with, unless there is one that a person made."""
    accounts: dict[str, Any] = {"web": {"channel": "feed", "updates": "{}"}}
    if sandbox is not None:
        for language in ("en", "fr"):
            accounts[f"social-{language}"] = {
                "channel": "mastodon",
                "url": sandbox,
                "token": f"northlink-{language}",
                "updates": "{}",
                "languages": [language],
            }
        accounts["partner"] = {
            "channel": "webhook",
            "url": f"{sandbox}/hooks/partner",
            "secret": "sandbox-secret-of-no-value",
            "updates": "{}",
            "languages": ["en"],
        }
    _write_ours(data / "accounts.yaml", {"accounts": accounts})


def make_sources(data: Path) -> None:
    """Write a file of operations systems to begin with, unless there is one that a person made."""
    formats = ("alertmanager", "cap", "gtfs-realtime", "pagerduty", "siri-sx", "statuspage")
    sources = {name: {"format": name, "network": "northlink"} for name in formats}
    _write_ours(data / "sources.yaml", {"sources": sources})


def make_labels(data: Path) -> None:
    """Copy the labels to begin with, unless there is a file that a person changed."""
    _write_ours(data / "labels.yaml", yaml.safe_load(LABELS.read_text()))


def _write_ours(path: Path, content: dict[str, Any]) -> None:
    if path.exists() and not path.read_text().startswith(MARK):
        return
    path.write_text(MARK + yaml.safe_dump(content, sort_keys=False))
    path.chmod(0o600)
