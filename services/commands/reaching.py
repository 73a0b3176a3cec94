"""How a command reaches Kafka (its servers from an option, the rest as INTERLOCK_KAFKA_… says), and how far back."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from services.commands.ending import fail

if TYPE_CHECKING:
    from services.kit.cluster import Cluster

UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}
LOCAL = "127.0.0.1:9092"
Servers = Annotated[
    str, typer.Option("--kafka", envvar="INTERLOCK_KAFKA", help="Kafka's bootstrap servers")
]


def cluster_at(servers: str) -> Cluster:
    """Return the cluster; ends the command where the settings are wrong."""
    from pydantic import ValidationError

    from schemas.envelope import in_words
    from services.kit.settings import Settings

    try:
        return Settings(kafka=servers).cluster
    except ValidationError as error:
        fail(in_words(error))


def period(given: str) -> timedelta:
    """Return how long a --since is; ends the command where it is none."""
    found = re.fullmatch(r"(\d{1,5})([mhd])", given)
    if found is None:
        fail(f"--since {given}: a number and a unit were expected, such as 30m, 24h, 7d")
    return timedelta(**{UNITS[found[2]]: int(found[1])})
