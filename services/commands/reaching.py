"""How a command reaches Kafka: its servers from an option, the rest as INTERLOCK_KAFKA_… says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from services.commands.ending import fail

if TYPE_CHECKING:
    from services.kit.cluster import Cluster

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
