"""`./run faults [--minutes M] [--seed S] [--keep]`: a campaign, its report; exit 1 when the promise broke."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from ops.embedded.kafka import jars
from tests.faults.campaign import Campaign
from tests.faults.host import Host
from tests.faults.seen import History

EVIDENCE = Path(__file__).parents[2] / "docs" / "evidence"
SHOWN = 10
screen = Console()


def main() -> int:
    made = argparse.ArgumentParser(prog="./run faults", description=__doc__)
    made.add_argument("--minutes", type=float, default=2.0)
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--keep", action="store_true", help="write the report to docs/evidence")
    made.add_argument("--mutant", default="", help="break a service so (tests/mutant.py)")
    made.add_argument("--folder", type=Path, help="keep the logs there; a new folder")
    wanted = made.parse_args()
    for name in ("INTERLOCK_KAFKA", "INTERLOCK_DATABASE"):
        os.environ.pop(name, None)
    jars(lambda text: screen.print(f"  {text}"))  # Before we leave the network.
    folder = wanted.folder or Path(tempfile.mkdtemp(prefix="interlock-faults-"))
    host = Host(folder)
    host.enter()
    campaign = Campaign(
        folder, host, seed=wanted.seed, mutant=wanted.mutant,
        say=lambda text: screen.print(f"  {text}"),
    )  # fmt: skip
    try:
        history = campaign.run(wanted.minutes)
    finally:
        host.close()
        if wanted.folder is None:
            shutil.rmtree(folder)
    lines = report(history, minutes=wanted.minutes, seed=wanted.seed, missing=host.missing)
    print("\n".join(lines))
    if wanted.keep:
        EVIDENCE.mkdir(parents=True, exist_ok=True)
        (EVIDENCE / f"faults-{wanted.minutes:g}m-seed{wanted.seed}.md").write_text(
            "\n".join(lines) + "\n"
        )
    return 0 if history.promise_held else 1


def report(
    history: History, *, minutes: float, seed: int, missing: Sequence[str] = ()
) -> list[str]:
    """Return the report as lines of Markdown."""
    verdict = history.verdict()
    head = ["git", "log", "-1", "--format=%h %s"]
    commit = subprocess.run(head, capture_output=True, text=True, check=False).stdout.strip()
    said = Counter(history.outcomes.get(key, "unknown") for key in history.offers)
    updates, stood = sorted(verdict.first_update_s), verdict.taken_back_s or [0.0]
    lines = [
        f"# Fault campaign, {minutes:g} minutes, seed {seed}",
        "",
        f"**The promise {'held' if history.promise_held else 'BROKE'}.** Written by `./run faults --minutes {minutes:g} --seed {seed} --keep`.",
        "",
        f"- commit: {commit or 'none'}",
        f"- when: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"- machine: {os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        "- engines: three brokers of Apache Kafka 4.1.1 (two in sync), PostgreSQL 18; 2 detectors, 3 publishers, 2 schedulers",
        *(f"- not possible on this machine: {one}" for one in missing),
        "",
        "| what | found |",
        "| --- | --- |",
        f"| races | {verdict.races} |",
        f"| offers queued; arrived | {len(history.offers)}; {verdict.arrived} |",
        f"| offers, by their end | {', '.join(f'{n} {what}' for what, n in said.most_common())} |",
        f"| offers that began to go out late (must be 0) | {len(set(history.sent_late()))} |",
        f"| offers that began in time, or when it was over, and may have arrived late | {len(verdict.late) - len(history.sent_late())} |",
        f"| offers that arrived twice (must be 0) | {len(verdict.doubled)} |",
        f"| offers said to be taken back that stand (must be 0) | {len(verdict.left_standing)} |",
        f"| offers that were cancelled and went out behind that (must be 0), of {len(history.cancelled)} | {len(verdict.unwanted)} |",
        f"| disruptions of which nobody was told (must be 0) | {len(verdict.untold)} |",
        f"| disruptions that Kafka lost unread, over when that was seen, and nobody was told | {len(history.untold_unread())} |",
        f"| offers unaccounted for (must be 0) | {len(verdict.unaccounted)} |",
        f"| `interlock audit verify` | {history.ledger_says} |",
        f"| disruptions told of twice on one account | {len(verdict.told_twice)} |",
        f"| first update, median and longest | {statistics.median(updates or [0]):.3f} s, {max(updates or [0]):.1f} s |",
        f"| covered offers that were taken back, for how long they had stood, median and longest | {statistics.median(stood):.3f} s, {max(stood):.1f} s |",
        f"| faults; processes started again | {len(history.faults)}; {sum(history.restarts.values())} |",
        "",
        "| kind of fault | times | offers flowed again after it, longest | by then others had begun |",
        "| --- | --- | --- | --- |",
        *(f"| {what} | {len(found)} | {max(found)[0]:.1f} s | {max(found)[1]} |" for what, found in sorted(history.stalls().items())),
    ]  # fmt: skip
    lines += [
        f"- ARRIVED LATE: {one.offer} by {one.by_s:.3f} s, {one.disruption}"
        for one in verdict.late[:SHOWN]
    ]
    lines += [f"- DOUBLED: {one}" for one in verdict.doubled[:SHOWN]]
    lines += [f"- LEFT STANDING: {one}" for one in verdict.left_standing[:SHOWN]]
    lines += [f"- UNWANTED: {one}" for one in verdict.unwanted[:SHOWN]]
    lines += [f"- UNTOLD: {one}" for one in verdict.untold[:SHOWN]]
    lines += [
        f"- UNACCOUNTED: {one}, {history.outcomes.get(one, 'unknown')}"
        for one in verdict.unaccounted[:SHOWN]
    ]
    return lines


if __name__ == "__main__":
    sys.exit(main())
