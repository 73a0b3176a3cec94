"""How fast marketing's requests and files are: by wrk and by the command, each a process of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from ops.embedded.system import System

WRK = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer {key}"
wrk.body = '{{"account": "social-en", "text": "To the sea", "due_at": "2099-01-01T00:00:00Z"}}'
"""

ALIKE = """
INSERT INTO alike (post_id, campaign_id, lane_id, account, text, due_at, latest_at, state, author, external_id, ready_at)
SELECT gen_random_uuid()::text, 'bench', 1, account, text, due, due + interval '6 hours', 'queued', 'bench',
    gen_random_uuid()::text, clock_timestamp() FROM bare
"""


def post_requests(
    system: System, folder: Path, say: Callable[[str], None], *, seconds: int
) -> list[dict[str, Any]]:
    """Return how many requests a process takes, and how long each does."""
    what = "POST of one offer, one process"
    wrk = shutil.which("wrk")
    if wrk is None:
        return [
            {
                "what": f"{what}: wrk is not installed",
                "aim": "≥ 1,500/s",
                "measured": "not measured",
            }
        ]
    with system.client("scheduler", "marketing") as client:
        made = client.post("/v1/campaigns", json={"name": "bench"}).raise_for_status().json()
        key = client.headers["authorization"].split(" ")[1]
        url = f"{client.base_url}/v1/campaigns/{made['campaign_id']}/posts".replace("//v1", "/v1")
        nothing = f"{client.base_url}/healthz".replace("//healthz", "/healthz")
    script = folder / "post.lua"
    script.write_text(WRK.format(key=key))
    say("requests, as many as may be")
    bare, _, _ = _wrk(wrk, None, nothing, connections=16, seconds=seconds)
    most, _, _ = _wrk(wrk, script, url, connections=16, seconds=seconds)
    say("requests, with two at once")
    some, p50, p99 = _wrk(wrk, script, url, connections=2, seconds=seconds)
    return [
        {
            "what": f"{what}, 16 connections",
            "aim": "≥ 1,500/s",
            "measured": f"{most:,.0f}/s (GET /healthz, which asks nobody: {bare:,.0f}/s)",
            "met": most >= 1_500,
        },
        {
            "what": f"the same with 2 connections: {some:,.0f}/s, {some / most:.0%} of that",
            "aim": "p99 ≤ 20 ms at half",
            "measured": f"p50 {p50:.1f} ms, p99 {p99:.1f} ms",
            "met": p99 <= 20,
        },
    ]


def import_file(
    system: System, folder: Path, say: Callable[[str], None], *, rows: int
) -> list[dict[str, Any]]:
    """Queue a file by `interlock posts import`, and COPY the same bytes into a table without an index."""
    file = folder / "offers.csv"
    with file.open("w") as out:
        out.write("account,text,due_at,label.line\n")
        for number in range(rows):
            out.write(
                f"social-en,Half price to the sea today {number},2099-01-01T00:00:00Z,coast\n"
            )
    say(f"{rows:,} rows of a file")
    with system.client("scheduler", "marketing") as client:
        made = client.post("/v1/campaigns", json={"name": "file"}).raise_for_status().json()
        key = client.headers["authorization"].split(" ")[1]
        where = [
            "--campaign",
            made["campaign_id"],
            "--scheduler",
            str(client.base_url),
            "--key",
            key,
        ]
    begun_s = time.perf_counter()
    command = [sys.executable, "-m", "services.cli", "posts", "import", str(file), *where]
    subprocess.run(command, check=True, capture_output=True)
    ours_s = time.perf_counter() - begun_s
    bare_s, alike_s = uvloop.run(_copy(system.database, file))
    ratio = bare_s / ours_s
    return [
        {
            "what": f"import of {rows:,} rows by the command: all tried, then queued",
            "aim": "≥ 0.25 × the speed of a bare COPY",
            "measured": f"{rows / ours_s:,.0f} rows/s, {ratio:.3f} × (COPY: {rows / bare_s:,.0f}/s;"
            f" INSERT … SELECT of them into a table with the indexes of ours: {rows / alike_s:,.0f}/s)",
            "met": ratio >= 0.25,
        }
    ]


async def _copy(url: str, file: Path) -> tuple[float, float]:
    """Return how long a COPY takes, and the same rows from there into a table like that of the posts."""
    connection: Any = await asyncpg.connect(url)  # type: ignore[no-untyped-call]
    await connection.execute(
        "CREATE TEMP TABLE bare (account text, text text, due timestamptz, line text)"
    )
    begun_s = time.perf_counter()
    await connection.copy_to_table("bare", source=file, format="csv", header=True)
    took_s = time.perf_counter() - begun_s
    await connection.execute("CREATE TABLE alike (LIKE scheduler.posts INCLUDING ALL)")
    begun_s = time.perf_counter()
    await connection.execute(ALIKE)
    alike_s = time.perf_counter() - begun_s
    await connection.execute("DROP TABLE alike")
    await connection.close()
    return took_s, alike_s


def _wrk(
    wrk: str, script: Path | None, url: str, *, connections: int, seconds: int
) -> tuple[float, float, float]:
    """Return requests a second, and milliseconds at the median and the 99th percentile."""
    command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    command += ["-s", str(script), url] if script else [url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in said, said
    words = {
        line.split()[0]: line.split()[1] for line in said.splitlines() if len(line.split()) > 1
    }
    return float(words["Requests/sec:"]), _in_ms(words["50%"]), _in_ms(words["99%"])


def _in_ms(given: str) -> float:
    for unit, factor in (("us", 0.001), ("ms", 1.0), ("s", 1_000.0)):
        if given.endswith(unit):
            return float(given.removesuffix(unit)) * factor
    raise ValueError(given)
