"""Policies, and how one is read from its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from schemas.envelope import in_words
from schemas.policies import Policy

DEFAULT = Path(__file__).with_name("default.yaml")


def read_policy(path: Path) -> Policy:
    """Read a policy; messages named by path are read from beside it. ValueError names the field."""
    try:
        found: Any = yaml.safe_load(path.read_text())
        if not isinstance(found, dict):
            raise TypeError("a mapping was expected")
        messages = found.get("messages") or {}
        for language, name in messages.items():
            if isinstance(name, str):
                messages[language] = yaml.safe_load((path.parent / name).read_text())
        return Policy.model_validate(found)
    except ValidationError as error:
        raise ValueError(f"{path}: {in_words(error)}") from error
    except (OSError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error
