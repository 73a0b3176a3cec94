"""`./run simulate`: play schedules until one breaks the promise; exit 1 when one does.

./run simulate [--schedules N] [--first SEED] [--minutes M] [--jobs J]
./run simulate --seed N [--trace]      one schedule; it replays exactly, and a bad one is shrunk
./run simulate --mutants [NAME ...] [--keep]    each fault put into the code, until it is caught

Without --keep the evening that showed a fault the last time (docs/mutants.md) is played first.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import gc
import importlib
import multiprocessing
import os
import subprocess
import sys
import time
import warnings
from collections.abc import MutableMapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, count
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.simulation import mutants

MOST_SCHEDULES = 3_000  # A mutant that none of them catches is a hole in the simulation.
LIBRARIES = (
    "aiokafka", "babel.dates", "cloudevents.core.v1.event", "faststream.kafka", "jinja2.sandbox", "kafka.admin",
    "prometheus_client", "pydantic_settings", "pytest", "re2", "sqlalchemy.ext.asyncio", "structlog",
)  # fmt: skip
QUEUED_EVERY = 10
GC_THRESHOLDS = (100_000, 50, 1_000)
TABLE = Path(__file__).parents[2] / "docs" / "mutants.md"
screen = Console()


def main() -> int:
    wanted = _arguments()
    if os.environ.get("PYTHONHASHSEED") != "0":  # Sets have one order then, and a seed one evening.
        again = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execve(sys.executable, again, os.environ | {"PYTHONHASHSEED": "0"})  # noqa: S606  # Ourselves.
    if wanted.mutants is not None:
        return _all_mutants(wanted.mutants or list(mutants.MUTANTS), wanted.jobs, keep=wanted.keep)
    if wanted.mutant:
        mutants.put_in(wanted.mutant)
    if wanted.seed is not None:
        return _one(wanted.seed, queued=wanted.queue, trace=wanted.trace)
    if wanted.jobs > 1:
        return _shared(wanted)
    return _many(wanted)


def _arguments() -> argparse.Namespace:
    made = argparse.ArgumentParser(prog="./run simulate", description=__doc__)
    made.add_argument("--seed", type=int, help="one schedule")
    made.add_argument(
        "--trace", action="store_true", help="print the evening, with the services' logs"
    )
    made.add_argument("--schedules", type=int, default=1_000)
    made.add_argument("--first", type=int, default=0, help="the first seed")
    made.add_argument("--minutes", type=float, help="go on so long, whatever their number")
    made.add_argument("--jobs", type=int, default=1, help="processes beside each other")
    made.add_argument(
        "--queue", action=argparse.BooleanOptionalAction,
        help=f"every evening with real schedulers on PostgreSQL, not only each {QUEUED_EVERY}th",
    )  # fmt: skip
    made.add_argument("--mutants", nargs="*", metavar="NAME", help="faults put into the code")
    made.add_argument("--keep", action="store_true", help="write their table to docs/mutants.md")
    made.add_argument("--mutant", help="one of them, in this process")
    return made.parse_args()


def _set_up(*, tells: bool) -> None:
    import logging

    import structlog

    structlog.configure(
        processors=[_into_story],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.INFO if tells else logging.CRITICAL
        ),
    )
    sys.unraisablehook = lambda _: None  # A killed process cleans nothing up,
    warnings.filterwarnings(
        "ignore", message="coroutine .* was never awaited"
    )  # and begins nothing.
    gc.set_threshold(*GC_THRESHOLDS)  # An evening's garbage is small, and looked for less often.


def _into_story(_: Any, __: str, said: MutableMapping[str, Any]) -> Any:
    """Tell what a service logs in the evening's story; trace ids are random, and no part of it."""
    import structlog

    from tests.simulation.loop import PROCESS, Loop

    process, loop = PROCESS.get(), asyncio.get_running_loop()
    if process is not None and isinstance(loop, Loop) and loop.tell is not None:
        what = said.pop("event")
        values = " ".join(f"{k}={str(v).splitlines()[0]}" for k, v in said.items() if k != "trace")
        loop.tell(f"  {process.name}: {what} {values}")
    raise structlog.DropEvent


def _play(seed: int, *, queued: bool | None = None, without: frozenset[int] = frozenset()) -> Any:
    from tests.simulation.world import World

    if queued is None:
        queued = seed % QUEUED_EVERY == QUEUED_EVERY - 1
    return World(seed, without=without, server=_server() if queued else None).run()


@cache
def _server() -> Any:
    """Start a PostgreSQL of this process's own, for as long as it runs."""
    from tests.simulation.database import Server

    made = Server()
    atexit.register(made.stop)
    return made


def _one(seed: int, *, queued: bool | None, trace: bool) -> int:
    _set_up(tells=True)
    world = _play(seed, queued=queued)
    if world.broken:
        world = _shrunk(world)
        screen.print(
            f"without the faults {sorted(world.misfortune.without)} of {world.misfortune.count} it breaks as well"
        )
    if trace or world.broken:
        print("\n".join(world.story))
    print(f"schedule {seed}: {world.broken[0] if world.broken else 'the promise held'}")
    return 1 if world.broken else 0


def _flag(queued: bool | None) -> list[str]:
    return [] if queued is None else ["--queue"] if queued else ["--no-queue"]


def _shrunk(world: Any) -> Any:
    """Leave out one fault after the other, as long as it breaks in the same way."""
    for number in range(1, world.misfortune.count + 1):
        less = world.misfortune.without | {number}
        smaller = _play(world.seed, queued=world.is_queued, without=less)
        if smaller.broken:
            world = smaller
    return world


def _many(wanted: argparse.Namespace) -> int:
    _set_up(tells=False)
    begin = time.monotonic()
    seeds = (
        count(wanted.first)
        if wanted.minutes
        else range(wanted.first, wanted.first + wanted.schedules)
    )
    done, bad = 0, []
    for seed in seeds:
        world = _play(seed, queued=wanted.queue)
        done += 1
        if world.broken:
            bad.append(seed)
            print(f"schedule {seed}: {world.broken[0]}", flush=True)
            if wanted.mutant:
                break
        if wanted.minutes and time.monotonic() - begin > 60 * wanted.minutes:
            break
    taken_s = time.monotonic() - begin
    print(f"{done} schedules, {len(bad)} broken, {taken_s:.1f} s, {done / taken_s:.1f} schedules/s")
    for seed in bad[:3]:
        print(f"  ./run simulate --seed {seed} {' '.join([*_flag(wanted.queue), '--trace'])}")
    return 1 if bad else 0


def _shared(wanted: argparse.Namespace) -> int:
    each = wanted.schedules // wanted.jobs
    begin = time.monotonic()
    command = [sys.executable, "-m", "tests.simulation"]
    running = [
        subprocess.Popen(
            [*command, "--schedules", str(each), "--first", str(wanted.first + job * (each if not wanted.minutes else 10**9)),
             *(["--minutes", str(wanted.minutes)] if wanted.minutes else []), *_flag(wanted.queue)]
        )
        for job in range(wanted.jobs)
    ]  # fmt: skip
    codes = [one.wait() for one in running]
    print(f"all of them: {time.monotonic() - begin:.1f} s")
    return max(codes)


@dataclass(frozen=True, slots=True)
class Caught:
    """How a mutant ended: the schedules until it was caught, and what was said of it."""

    name: str
    is_caught: bool
    schedules: int
    said: str


def _all_mutants(names: list[str], jobs: int, *, keep: bool) -> int:
    for name in LIBRARIES:  # Once, for all of them; our own modules each imports with its change.
        importlib.import_module(name)
    caught = []
    known = {} if keep else _known_evenings()
    play = partial(_mutant, compares=keep, known=known)
    # A process for each: what was imported stays as it was.
    with multiprocessing.get_context("fork").Pool(max(1, jobs), maxtasksperchild=1) as pool:
        for one in pool.imap(play, names):
            screen.print(f"  {one.name}: {one.schedules} schedules")
            caught.append(one)
    table = Table("mutant", "what is wrong with it", "schedules", "how it shows")
    for one in caught:
        what = mutants.MUTANTS[one.name].what
        table.add_row(
            one.name,
            what,
            str(one.schedules),
            one.said if one.is_caught else f"NOT CAUGHT {one.said}",
        )
    screen.print(table)
    if keep:
        _keep(caught)
    return 0 if all(one.is_caught for one in caught) else 1


def _known_evenings() -> dict[str, int]:
    """Return the seed of each mutant's evening by the table; behind a change of the code it may show nothing."""
    rows = (line.split(" | ") for line in TABLE.read_text().splitlines() if line.startswith("| `"))
    return {row[0].split("`")[1]: int(row[2]) - 1 for row in rows if row[2].isdigit()}


def _mutant(name: str, *, compares: bool, known: dict[str, int]) -> Caught:
    mutants.put_in(name)
    _set_up(tells=False)
    firsts = [known[name]] if name in known else []
    others = (seed for seed in range(MOST_SCHEDULES) if seed not in firsts)
    for tried, seed in enumerate(chain(firsts, others), start=1):
        queued = mutants.MUTANTS[name].queued
        if broken := _play(seed, queued=queued).broken:
            holds = not compares or _holds_without(seed, queued=queued)
            said = broken[0][:100] if holds else f"the evening {seed} breaks without it as well"
            return Caught(name, is_caught=holds, schedules=tried, said=said)
    return Caught(name, is_caught=False, schedules=MOST_SCHEDULES, said="")


def _holds_without(seed: int, *, queued: bool | None) -> bool:
    """Play the evening on the code as it is: what breaks there as well shows nothing of a mutant."""
    command = [sys.executable, "-m", "tests.simulation", "--seed", str(seed), *_flag(queued)]
    return subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == 0


def _keep(caught: list[Caught]) -> None:
    """Write their rows; those of other mutants stay, each with the commit on which it was measured."""
    head = ["git", "log", "-1", "--format=%h"]
    commit = subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()
    old = TABLE.read_text().splitlines() if TABLE.exists() else []
    rows = {line.split("`")[1]: line for line in old if line.startswith("| `")}
    for c in caught:
        schedules = c.schedules if c.is_caught else f"**not in {c.schedules}**"
        what = mutants.MUTANTS[c.name].what
        rows[c.name] = f"| `{c.name}` | {what} | {schedules} | {c.said} | {commit} |"
    lines = [
        "# Faults put into the code, and how soon the simulation catches them",
        "",
        "Written by `./run simulate --mutants --keep`. Each is a change of the real code's text (`tests/simulation/mutants.py`).",
        "The evening that shows it holds without it.",
        "",
        "| mutant | what is wrong with it | schedules until caught | how it shows | commit |",
        "| --- | --- | --- | --- | --- |",
        *(rows[name] for name in mutants.MUTANTS if name in rows),
    ]
    TABLE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
