"""`interlock rehearse FILE`: an evening of events against a copy of the real queue, without any channel."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from services.commands.ending import fail
from services.commands.policy import COLOURED, Detector, Key, as_minute, in_force, read

FATES: Final = ("as planned", "late", "review", "expired", "still held", "taken back")


def rehearse(
    file: Annotated[
        Path, typer.Argument(help="an evening of events, as `interlock policy test` takes")
    ],
    scheduler: Annotated[
        str, typer.Option(envvar="INTERLOCK_SCHEDULER", help="its address: whose queue it is")
    ],
    key: Key = "",
    detector: Detector = "",
    policy: Annotated[
        Path | None, typer.Option(help="a policy to try; by default the one in force")
    ] = None,
    begin: Annotated[
        datetime | None, typer.Option(help="when it begins, UTC; by default as the file says")
    ] = None,
    show: Annotated[int, typer.Option(help="so many offers are named", min=0, max=1_000)] = 20,
) -> None:
    """Play an evening: what would be held and said, and what would become of the offers that wait."""
    from rich.console import Console

    from ops.policies import read_example
    from services.detector.rehearsal import play

    try:
        example = read_example(file)
    except ValueError as error:
        fail(str(error))
    if begin is not None:
        from datetime import UTC

        example = example.model_copy(update={"begins_at": begin.replace(tzinfo=UTC)})
    happened, said = play(read(policy) if policy else in_force(detector, key), example)
    console = Console(highlight=False, soft_wrap=True)
    for line in happened:
        text = line.text.replace("\n", "\n" + " " * 19)
        console.print(f"{as_minute(line.minute):>8}  {COLOURED[line.what]} ", end="")
        console.print(text, markup=False)
    minutes = max([example.until_minute, *(step.minute for step in example.steps)])
    evening = {
        "begin_at": example.begins_at.isoformat(),
        "end_at": (example.begins_at + timedelta(minutes=max(minutes, 1))).isoformat(),
        "holds": holds_of(said),
    }
    _tell(console, _ask(scheduler, key, evening, limit=show), file)


def holds_of(said: list[Any]) -> list[dict[str, Any]]:
    """Return the holds that were said, each with its end."""
    from schemas.holds import HoldOpened, HoldReleased

    ends = {one.hold_id: one.released_at for one in said if isinstance(one, HoldReleased)}
    names = {"hold_id", "matchers", "opened_at", "take_back_s"}
    return [
        one.model_dump(mode="json", include=names)
        | ({"released_at": ends[one.hold_id].isoformat()} if one.hold_id in ends else {})
        for one in said
        if isinstance(one, HoldOpened)
    ]


def _ask(scheduler: str, key: str, evening: dict[str, Any], *, limit: int) -> Any:
    import httpx

    url, headers = f"{scheduler}/v1/rehearsals", {"authorization": f"Bearer {key}"}
    try:
        answer = httpx.post(url, json=evening, headers=headers, params={"limit": limit}, timeout=60)
    except httpx.HTTPError as error:
        fail(f"{url}: {error}")
    if not answer.is_success:
        fail(f"{url}: {answer.json()['detail']}")
    return answer.json()


def _tell(console: Any, played: Any, file: Path) -> None:
    from rich.table import Table

    total = sum(played["counts"].values())
    table = Table("campaign", *FATES, title=f"{total:,} offers that wait are due in {file.name}")
    for name, counts in played["campaigns"].items():
        table.add_row(name, *(str(counts.get(fate, "")) for fate in FATES))
    if len(played["campaigns"]) != 1:
        table.add_row("all", *(str(played["counts"].get(fate, "")) for fate in FATES))
    console.print(table)
    for one in played["posts"]:
        then = f", goes out {one['then_at']}" if one["then_at"] else ""
        console.print(
            f"{one['post_id']}, due {one['due_at']}: {one['fate']}{then} ({one['hold_id']})",
            markup=False,
        )
    if played["cut"]:
        fail("there are more offers than a rehearsal takes: the first 200,000 were played")
