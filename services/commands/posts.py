"""`interlock posts …`: files of offers into the queue and out of it, in parts, with progress."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer

from services.commands.ending import fail

posts = typer.Typer(no_args_is_help=True, help="Files of offers: in, tried first, and out.")

ROWS: Final = 1_000
AT_ONCE: Final = 2  # While one is written, the next is read and checked.
SHOWN: Final = 20
PATIENCE_S: Final = 60.0
TYPES: Final = {"csv": "text/csv", "ndjson": "application/x-ndjson"}
Campaign = Annotated[str, typer.Option(help="the campaign's id")]
Address = Annotated[
    str, typer.Option("--scheduler", envvar="INTERLOCK_SCHEDULER", help="the scheduler's address")
]
Key = Annotated[str, typer.Option("--key", envvar="INTERLOCK_KEY", help="an API key of marketing")]
Part = tuple[int, int, str]


@posts.command("import")
def bring(
    file: Annotated[Path, typer.Argument(help="a .csv, .ndjson or .xlsx file")],
    campaign: Campaign,
    scheduler: Address,
    key: Key,
    dry_run: Annotated[bool, typer.Option(help="only say what is wrong, row by row")] = False,
    good_only: Annotated[
        bool, typer.Option(help="queue the good rows of a file with bad ones")
    ] = False,
    from_row: Annotated[int, typer.Option(help="go on at this row")] = 1,
) -> None:
    """Queue a file of offers. The whole file is tried first, and nothing is queued if a row is wrong.

    Rows without an `external_id` get one of the file's content and their number: to send a file again
    queues nothing twice.
    """
    with _client(scheduler, key) as client:
        wrong = _send_all(client, file, campaign, from_row, "looking", dry_run=True)
        if dry_run or (wrong and not good_only):
            if wrong:
                fail(f"{wrong} rows are wrong: nothing was queued")
            print("all rows are good")
            return
        _send_all(client, file, campaign, from_row, "queueing", good_only=good_only)


@posts.command("export")
def bring_out(
    campaign: Campaign,
    scheduler: Address,
    key: Key,
    file: Annotated[Path, typer.Option("--to", help="a .csv or .ndjson file")] = Path("posts.csv"),
) -> None:
    """Write a campaign's offers, and what became of them, into a file."""
    form = file.suffix.removeprefix(".")
    if form not in TYPES:
        fail(f"{file}: .csv or .ndjson was expected")
    url = f"/v1/campaigns/{campaign}/export"
    with (
        _client(scheduler, key) as client,
        client.stream("GET", url, params={"format": form}) as answer,
    ):
        if not answer.is_success:
            answer.read()
            fail(_in_words(answer))
        with file.open("wb") as out:
            for chunk in answer.iter_bytes():
                out.write(chunk)
    print(f"wrote {file}")


def _send_all(
    client: httpx.Client, file: Path, campaign: str, from_row: int, doing: str, **params: Any
) -> int:
    """Send a file part by part; returns how many rows are wrong."""
    from rich.progress import Progress, TextColumn

    totals = {"rows": 0, "queued": 0, "known": 0, "wrong": 0}
    kind, parts = _parts(file, from_row)

    def send(part: Part) -> httpx.Response:
        return client.post(
            f"/v1/campaigns/{campaign}/import", content=part[2].encode(),
            headers={"content-type": kind}, params={"first_row": part[0]} | params,
        )  # fmt: skip

    with Progress(TextColumn("{task.description}"), transient=True) as progress:
        task = progress.add_task(doing)
        for first, answer in _answers(send, parts):
            if not answer.is_success:
                fail(f"row {first} and on: {_in_words(answer)}; go on with --from-row {first}")
            report = answer.json()
            wrong = sorted({one["row"] for one in report["refused"]})
            for one in report["refused"][: max(0, SHOWN - totals["wrong"])]:
                print(f"row {one['row']}: {one['pointer'].strip('/') or 'row'}: {one['detail']}")
            if params.get("dry_run") and first == from_row:
                for said in sorted({one["detail"] for one in report["doubtful"]}):
                    print(f"but: {said}")
            for name in ("rows", "queued", "known"):
                totals[name] += report[name]
            totals["wrong"] += len(wrong)
            progress.update(task, description=f"{doing}: {totals['rows']:,} rows")
    said = f"{totals['rows']:,} rows, {totals['wrong']:,} wrong"
    print(
        f"{doing}: {said}"
        + (
            ""
            if params.get("dry_run")
            else f", {totals['queued']:,} queued, {totals['known']:,} known before"
        )
    )
    return totals["wrong"]


def _answers(
    send: Callable[[Part], httpx.Response], parts: Iterable[Part]
) -> Iterator[tuple[int, httpx.Response]]:
    """Send parts, some at once, and yield each one's first row and its answer, in the file's order.

    What was sent behind a part that failed is known when it is sent again.
    """
    under_way: deque[tuple[int, Future[httpx.Response]]] = deque()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for part in parts:
            under_way.append((part[0], pool.submit(send, part)))
            if len(under_way) == AT_ONCE:
                first, answer = under_way.popleft()
                yield first, answer.result()
        while under_way:
            first, answer = under_way.popleft()
            yield first, answer.result()


def _parts(file: Path, from_row: int) -> tuple[str, Iterator[Part]]:
    form = file.suffix.removeprefix(".").lower()
    if not file.is_file():
        fail(f"there is no file {file}")
    mark = f"{file.name}-{_digest(file)}"
    if form == "csv":
        return TYPES["ndjson"], _in_parts(_csv_rows(file), mark, from_row)
    if form == "ndjson":
        return TYPES["ndjson"], _in_parts(_ndjson_rows(file), mark, from_row)
    if form == "xlsx":
        return TYPES["ndjson"], _in_parts(_sheet_rows(file), mark, from_row)
    fail(f"{file}: .csv, .ndjson or .xlsx was expected")
    return None


def _in_parts(found: Iterator[Any], mark: str, from_row: int) -> Iterator[Part]:
    """Yield parts of a thousand rows: the first row's number, the next part's, the lines."""
    lines: list[str] = []
    first = from_row
    for number, row in enumerate(found, 1):
        if number < from_row:
            continue
        if isinstance(row, dict):
            row.setdefault("external_id", f"{mark}-{number}")
        lines.append(json.dumps(row))
        if len(lines) == ROWS:
            yield first, number + 1, "\n".join(lines)
            lines, first = [], number + 1
    if lines:
        yield first, first + len(lines), "\n".join(lines)


def _csv_rows(file: Path) -> Iterator[Any]:
    import csv

    from services.scheduler.rows import of_cells, strange_columns

    with file.open(newline="", encoding="utf-8-sig") as content:
        reader = csv.DictReader(content, strict=True)
        try:
            if why := strange_columns(reader.fieldnames or ()):
                fail(f"{file}: {why}")
            for row in reader:
                yield "more cells than names" if None in row else of_cells(row)
        except (csv.Error, UnicodeDecodeError) as error:
            fail(f"{file}, line {reader.line_num + 1}: {error}")


def _ndjson_rows(file: Path) -> Iterator[Any]:
    with file.open("rb") as content:
        for number, line in enumerate(content, 1):
            if line.strip():
                try:
                    yield json.loads(line.decode("utf-8-sig"))
                except ValueError as error:  # No UTF-8 is one too.
                    fail(f"{file}, line {number}: no JSON: {error}")


def _sheet_rows(file: Path) -> Iterator[Any]:
    from python_calamine import CalamineWorkbook

    from services.scheduler.rows import of_cells, strange_columns

    found = iter(CalamineWorkbook.from_path(file).get_sheet_by_index(0).to_python())
    names = [str(cell) for cell in next(found, [])]
    if why := strange_columns(names):
        fail(f"{file}: {why}")
    for cells in found:
        yield of_cells(dict(zip(names, map(_cell, cells), strict=False)))


def _cell(value: Any) -> str:
    if hasattr(value, "isoformat"):
        return (
            f"{value.isoformat()}Z" if getattr(value, "tzinfo", None) is None else value.isoformat()
        )
    return str(value)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]


def _client(scheduler: str, key: str) -> httpx.Client:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.Client(base_url=scheduler, headers=headers, timeout=PATIENCE_S)


def _in_words(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError):
        return f"HTTP {answer.status_code}"
