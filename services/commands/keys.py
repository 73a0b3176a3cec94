"""`interlock keys …`: who may ask the services, and what signs records and web pushes."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path
from typing import Annotated

import typer

from services.commands.ending import fail

KeysFile = Annotated[Path, typer.Option("--file", envvar="INTERLOCK_KEYS", help="the keys file")]
keys = typer.Typer(no_args_is_help=True, help="API keys: the file that every service reads.")


@keys.command("add")
def add(
    name: str,
    role: Annotated[list[str], typer.Option(help="repeatable")],
    network: Annotated[list[str] | None, typer.Option(help="speak for these only")] = None,
    file: KeysFile = Path("keys.json"),
) -> None:
    """Make a key and print it, once; the file keeps its SHA-256."""
    from ops.embedded.keys import add_key

    try:
        print(add_key(file, name=name, roles=tuple(role), networks=tuple(network or ())))
    except ValueError as error:
        fail(str(error))


@keys.command("remove")
def remove(name: str, file: KeysFile = Path("keys.json")) -> None:
    """Remove a key; services notice within a second."""
    from ops.embedded.keys import remove_key

    if not remove_key(file, name):
        fail(f"{file} has no key named {name}")


@keys.command("list")
def list_keys(file: KeysFile = Path("keys.json")) -> None:
    """List names, roles and networks."""
    from ops.embedded.keys import read_keys

    for entry in read_keys(file):
        networks = ", ".join(entry.get("networks", [])) or "all networks"
        print(f"{entry['name']}: {', '.join(entry['roles'])} ({networks})")


@keys.command("vapid")
def vapid() -> None:
    """Make the private key of a webpush account (RFC 8292) and print it; browsers are bound to it."""
    from services.publisher.channels.webpush import new_private_key

    print(new_private_key())


@keys.command("signing")
def signing(
    name: str,
    everything: Annotated[
        bool, typer.Option("--everything", help="for the detectors: people's commands too")
    ] = False,
    network: Annotated[list[str] | None, typer.Option(help="disruptions of these only")] = None,
) -> None:
    """Make a key that signs records of ops.disruptions, and print it as a file of signing keys."""
    import yaml
    from pydantic import ValidationError

    from schemas.envelope import in_words
    from schemas.signing import SECRET_BYTES, SigningKey

    made = {
        "name": name,
        "secret": base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode(),
        "may": "everything" if everything else "disruptions",
        "networks": network or [],
    }
    try:
        SigningKey.model_validate(made)
    except ValidationError as error:
        fail(in_words(error))
    print(yaml.safe_dump({"keys": [made]}, sort_keys=False), end="")
