"""What offers and updates wait for when one of three brokers is killed, and when its host or PostgreSQL's is gone.

A host that has lost its power says nothing: no connection is closed, and what is sent to it stays unanswered. For it
the broker is stopped, and packets from and to it are dropped, in a network namespace of our own, which only root may
have. Kafka itself believes in a broker of which it hears nothing for nine seconds (`broker.session.timeout.ms`), and
until then nothing is acknowledged that the broker has a copy of: all of it, where there are three. Nothing is sent
without PostgreSQL: what counts there is what is waited for behind its return.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx

from ops.embedded.kafka import jars
from ops.embedded.system import System
from tests.bench.deploy import NUMBERS, SERVICES, Rain
from tests.builders import at_once
from tests.faults.acts import controller_of
from tests.faults.host import Host
from tests.journey import Journey

AIM_S: Final = 18.0  # Twice what Kafka needs to see it.
SOON: Final = {"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500"}
AIM_SOON_S: Final = 12.0
EVERY_S, RAIN_S, LOST_AT_S, LOST_FOR_S = 0.25, 40.0, 5.0, 30.0
STATEMENTS_S: Final = 1.0
BACK_S: Final = 10.0  # It starts, and what was tried meanwhile is tried again.


class Downpour(Rain):
    """Disruptions that come all the while, whatever becomes of those before them."""

    refused = 0

    def fall(self) -> None:
        """Let offers and disruptions come for RAIN_S, each at its time."""
        until_s, reports = time.monotonic() + RAIN_S, list[threading.Thread]()
        while time.monotonic() < until_s:
            reports += [threading.Thread(target=self._report), threading.Thread(target=self._offer)]
            for report in reports[-2:]:
                report.start()
            time.sleep(EVERY_S)
        for report in reports:
            report.join()

    def _offer(self) -> None:
        account = ("social-en", "social-fr")[len(self.offers) % 2]
        try:
            (offer,) = self.journey.offers(self.campaign, {"account": account})
        except httpx.HTTPError:
            self.refused += 1
        else:
            self.offers[offer] = time.monotonic()

    def _report(self) -> None:
        name, at_s = f"loss-{next(NUMBERS)}-", time.monotonic()
        try:
            self.journey.event(name, network=name, title=f"Nothing goes {name}")
        except httpx.HTTPError:  # It was not acknowledged: whoever reports it does so again.
            self.refused += 1
        else:
            self.events[name] = at_s


def measure() -> list[dict[str, Any]]:
    """Run it; returns the rows of the table."""
    jars(_say)  # Before we leave the network.
    with tempfile.TemporaryDirectory() as folder:
        host = Host(Path(folder))
        host.enter()
        if not host.can_cut:
            why = {"aim": f"longest ≤ {AIM_S:.0f} s", "measured": "not measured", "met": False}
            return [{"what": one} | why for one in host.missing]
        rows = _measure(Path(folder) / "as-it-comes", host, {})
        return rows + _measure(Path(folder) / "soon", host, SOON)


def _measure(folder: Path, host: Host, options: dict[str, str]) -> list[dict[str, Any]]:
    copies, env = dict.fromkeys(SERVICES, 2), {"INTERLOCK_REQUESTS_PER_MINUTE": "0"}
    ended = threading.Event()
    with System(
        folder, progress=_say, copies=copies, brokers=3, broker_options=options, env=env
    ) as system:
        tending = threading.Thread(target=_tend, args=(system, ended))
        tending.start()
        try:
            return _lose_each(system, host, options)
        finally:
            ended.set()
            tending.join()


def _tend(system: System, ended: threading.Event) -> None:
    while not ended.wait(0.1):
        for name in system.tend():
            system.restarts[name] = 0


def _lose_each(system: System, host: Host, options: dict[str, str]) -> list[dict[str, Any]]:
    rows, aim_s = [], AIM_SOON_S if options else AIM_S
    where = f", with {' '.join(f'{k}={v}' for k, v in options.items())}" if options else ""
    with system.client("detector", "admin") as admin:
        admin.put("/v1/policy", json=at_once()).raise_for_status()
    with Journey(system) as journey:
        campaign = journey.campaign()
        for broker in system.brokers:
            rain = Downpour(journey, campaign)
            what = f"the host of {broker} is gone, {LOST_FOR_S:.0f} s{where}"
            off = partial(_power_off, system, host, broker)
            rows.append(
                _row(what, rain, off, partial(_power_on, system, host, broker), aim_s=aim_s)
            )
        for broker in system.brokers if not options else []:
            kill = partial(system.children[broker].tell, signal.SIGKILL)
            rain = Downpour(journey, campaign)
            rows.append(
                _row(f"{broker} is killed, and started again", rain, kill, host.mend, aim_s=aim_s)
            )
        if not options:
            what, rain = (
                f"the host of PostgreSQL is gone, {LOST_FOR_S:.0f} s",
                Downpour(journey, campaign),
            )
            off = partial(_power_off_postgres, system, host)
            rows.append(_row(what, rain, off, host.mend, aim_s=LOST_FOR_S + BACK_S))
    return rows


def _power_off_postgres(system: System, host: Host) -> None:
    """Stop all its processes, and a moment later its network: statements are under way in each connection."""
    children = _and_children(system.children["postgres"].pid)
    for pid in children:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(STATEMENTS_S)
    host.cut([system.ports["postgres"]])
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _and_children(parent: int) -> list[int]:
    parent_of = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent_of[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    return [parent, *(pid for pid, its in parent_of.items() if its == parent)]


def _power_off(system: System, host: Host, broker: str) -> None:
    host.cut([system.ports[broker], system.ports[controller_of(broker)]])
    system.children[broker].tell(signal.SIGSTOP)


def _power_on(system: System, host: Host, broker: str) -> None:
    system.children[broker].tell(signal.SIGKILL)
    host.mend()


def _row(
    what: str,
    rain: Downpour,
    lose: Callable[[], None],
    mend: Callable[[], None],
    *,
    aim_s: float,
) -> dict[str, Any]:
    _say(what)
    falls = threading.Thread(target=rain.fall)
    falls.start()
    time.sleep(LOST_AT_S)
    lose()
    time.sleep(LOST_FOR_S)
    mend()
    falls.join()
    offers, updates = rain.waits_s()
    longest = max(*offers, *updates)
    return {
        "what": what,
        "aim": f"longest ≤ {aim_s:.0f} s",
        "measured": f"offers {_told(offers)}; reported → first update {_told(updates)}; "
        f"not taken: {rain.refused}",
        "met": longest <= aim_s,
    }


def _told(waits_s: list[float]) -> str:
    late = sum(wait > 1 for wait in waits_s)
    return f"p50 {statistics.median(waits_s) * 1_000:.0f} ms, longest {max(waits_s):.1f} s, {late} of {len(waits_s)} over 1 s"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
