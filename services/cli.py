"""The `interlock` command: run the system, look at it, and prepare what production needs."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from services.commands.audit import audit
from services.commands.ending import fail
from services.commands.events import events
from services.commands.keys import keys
from services.commands.labels import labels
from services.commands.ledger import ledger
from services.commands.policy import policy
from services.commands.posts import posts
from services.commands.rehearse import rehearse
from services.commands.topics import topics

SWITCH_S = 0.0005  # A thread that renders a page lets go of the interpreter ten times as often.
COLLECT = (20_000, 20, 20)  # A tenth of the time of a busy service went into looking for cycles.
app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
app.add_typer(topics, name="topics")
app.add_typer(keys, name="keys")
app.add_typer(audit, name="audit")
app.add_typer(policy, name="policy")
app.add_typer(events, name="events")
app.add_typer(posts, name="posts")
app.add_typer(labels, name="labels")
app.add_typer(ledger, name="ledger")
app.command("rehearse")(rehearse)

Service = Literal["scheduler", "detector", "publisher"]
GRACE_S = 5
TEND_S = 0.5
DOWN_S = 60

DataFolder = Annotated[
    Path, typer.Option("--data", envvar="INTERLOCK_DATA", help="the folder that holds everything")
]
HERE = Path(".interlock")


@app.callback()
def interlock() -> None:
    """Stop offers and tell customers when operations are disrupted."""


@app.command()
def serve(service: Annotated[Service, typer.Argument(help="which service")]) -> None:
    """Run one service in the foreground, as INTERLOCK_… says; this is what containers start."""
    import uvicorn
    from pydantic import ValidationError

    from services.kit.settings import Settings
    from services.kit.telemetry import set_up_logs
    from services.kit.web import ShortHeads

    try:
        settings = Settings()
        set_up_logs(service=service, level=settings.log_level, style=settings.log_format)
        made = import_module(f"services.{service}.app").new_service(settings)
    except (ValidationError, ValueError, OSError) as error:
        fail(f"{service}: {error}")
    gc.collect()
    gc.freeze()  # What is imported stays: no collection walks through it in the middle of a pause.
    gc.set_threshold(*COLLECT)
    sys.setswitchinterval(SWITCH_S)
    uvicorn.run(
        made,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=ShortHeads,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACE_S,
    )


@app.command()
def up(
    data: DataFolder = HERE,
    sandbox: Annotated[bool, typer.Option(help="run the sandbox network too")] = True,
    port: Annotated[
        list[str] | None, typer.Option(help="NAME=PORT, for any of the services; repeatable")
    ] = None,
) -> None:
    """Run the whole system here, with real Kafka and PostgreSQL, until Ctrl-C."""
    from ops.embedded.process import CannotStart
    from ops.embedded.screen import print_addresses, progress
    from ops.embedded.system import System

    begun_s = time.monotonic()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with progress() as say:
            system = System(data, progress=say, ports=_ports(port or []), sandbox=sandbox)
            with system:
                _apply_first_policy(system)
                say("")
                print_addresses(system, took_s=time.monotonic() - begun_s)
                while not stop.wait(TEND_S):
                    for name in system.tend():
                        print(f"{name} had ended and was started again", flush=True)
                print("stopping", flush=True)
    except CannotStart as error:
        fail(str(error))


@app.command()
def down(data: DataFolder = HERE) -> None:
    """Stop the system that runs on this folder."""
    from ops.embedded.process import CannotStart
    from ops.embedded.system import locked, read_state

    pid = read_state(data).get("pid")
    try:
        with locked(data):
            print(f"nothing runs on {data}")
            return
    except CannotStart:
        pass
    if pid is None:
        fail(f"something holds {data} and left no process number: see `fuser {data}/lock`")
    os.kill(pid, signal.SIGTERM)
    until_s = time.monotonic() + DOWN_S
    while time.monotonic() < until_s:
        try:
            with locked(data):
                print("stopped")
                return
        except CannotStart:
            time.sleep(0.1)
    fail(f"process {pid} has not stopped within {DOWN_S} s: see `interlock logs`")


@app.command()
def status(data: DataFolder = HERE) -> None:
    """Say what runs, where, and whether it is ready; exits 1 when something is not."""
    import httpx
    from rich.console import Console
    from rich.table import Table

    from ops.embedded.screen import resident_mb
    from ops.embedded.system import read_state

    state = read_state(data)
    if "pid" not in state or not Path(f"/proc/{state['pid']}").exists():
        fail(f"nothing runs on {data}: start it with `interlock up`")
    table = Table("name", "process", "memory", "address", "state")
    all_ready = True
    for name, pid in state["children"].items():
        address = state["addresses"].get(name, state.get(name.replace("postgres", "database"), ""))
        said = "runs" if Path(f"/proc/{pid}").exists() else "has ended"
        if name in state["addresses"]:
            try:
                answer = httpx.get(f"{address}/readyz", timeout=6).json()
                said = "; ".join([answer["status"], *answer["missing"].values()])
            except (httpx.HTTPError, ValueError) as error:
                said = f"does not answer ({type(error).__name__})"
            all_ready &= said == "ready"
        table.add_row(name, str(pid), f"{resident_mb(pid):.0f} MB", address, said)
    Console().print(table)
    if not all_ready:
        raise typer.Exit(1)


@app.command()
def logs(
    name: Annotated[str, typer.Argument(help="a service or an engine")] = "",
    data: DataFolder = HERE,
    lines: Annotated[int, typer.Option("--lines", "-n", help="how many")] = 40,
) -> None:
    """Show the last lines of the logs."""
    from ops.embedded.process import tail

    found = sorted((data / "logs").glob(f"{name or '*'}.log"))
    if not found:
        there = ", ".join(p.stem for p in sorted((data / "logs").glob("*.log"))) or "none"
        fail(f"there is no log {name!r} in {data / 'logs'}; there are: {there}")
    for path in found:
        print(f"==> {path}", tail(path, lines), sep="\n")


@app.command()
def demo(
    data: Annotated[
        Path | None, typer.Option(help="where; by default a folder that is removed")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="leave all running at the end")] = False,
) -> None:
    """Play the stranded-train evening; exits 0 only when the promise held."""
    from ops.demo.evening import main as play
    from ops.embedded.process import CannotStart

    try:
        raise typer.Exit(play(data, keep=keep))
    except CannotStart as error:
        fail(str(error))


def _apply_first_policy(system: Any) -> None:
    """Apply the default policy to a log that has none."""
    from ops.policies import DEFAULT, read_policy

    with system.client("detector") as client:
        in_force = client.get("/v1/policy").raise_for_status().json()
        if all(one is None for one in in_force.values()):
            content = read_policy(DEFAULT).model_dump_json()
            headers = {"content-type": "application/json"}
            client.put("/v1/policy", content=content, headers=headers).raise_for_status()


def _ports(given: list[str]) -> dict[str, int]:
    found = {}
    for one in given:
        name, _, number = one.partition("=")
        if not number.isdigit():
            fail(f"--port {one}: NAME=PORT was expected, such as --port publisher=8080")
        found[name] = int(number)
    return found


def main() -> None:
    app()


if __name__ == "__main__":
    main()
