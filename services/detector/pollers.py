"""Sources that are asked: read again and again, by the detector that has their network's partition.

- What is asked for is asked with the validators of the last answer (ETag, Last-Modified): a source
  that has nothing new says so in a few bytes, and has been read all the same.
- A source that does not answer is asked less and less often, up to ten minutes, and says so in
  `/readyz`, in the metrics and in the log. The policy says what its silence means.
- What has not changed is written again every few minutes only; that it was named is, each time. So
  whatever was taken for over by mistake, by a reader that was paused and woke up, stands again soon.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

import httpx
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from services.detector.doors import FORMATS, expect, write_reading
from services.detector.fetch import Fetcher
from services.detector.ingest import cap
from services.detector.ingest.reading import CannotRead, Reading, Reported
from services.detector.sources import Poll, Source
from services.detector.stream import Stream
from services.kit.web import Problem

IDLE_S = 1.0  # How soon a partition that we got has its sources read.
LONGEST_BACK_OFF_S = 600.0
AGAIN_S = 300.0
DOUBLINGS = 20
TELL_AFTER = 2  # Failures in a row: one is the weather.
log = structlog.get_logger()


@dataclass(slots=True)
class _Polled:
    """What is remembered of a source between two times; it may be lost at any moment."""

    fetcher: Fetcher
    validators: dict[str, dict[str, str]] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    written: dict[str, tuple[str, float]] = field(default_factory=dict)  # By id: what, and when.
    is_expected: bool = False
    losses: int = 0  # Of the log, when it was written last.
    failures: int = 0
    why: str = ""


class Pollers:
    """All sources that are asked. `loops` are to run beside the service."""

    def __init__(
        self, stream: Stream, sources: dict[str, Source], *, registry: CollectorRegistry
    ) -> None:
        self._stream, self._sources = stream, {n: s for n, s in sources.items() if s.poll}
        self._polled = {n: _Polled(Fetcher(s.poll)) for n, s in self._sources.items() if s.poll}
        self._read_at = Gauge(
            "interlock_source_read_timestamp_seconds",
            "When a source was read last.",
            ["source"],
            registry=registry,
        )
        self._failed = Counter(
            "interlock_source_failures_total",
            "Readings that failed.",
            ["source"],
            registry=registry,
        )

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """Return a loop for each source."""
        return [self._keep_reading(name, source) for name, source in self._sources.items()]

    def remarks(self) -> dict[str, str]:
        """Say which sources cannot be read, and why."""
        return {
            f"source {name}": f"not read {polled.failures} times in a row: {polled.why}"
            for name, polled in self._polled.items()
            if polled.failures >= TELL_AFTER
        }

    async def aclose(self) -> None:
        for polled in self._polled.values():
            await polled.fetcher.aclose()

    async def _keep_reading(self, name: str, source: Source) -> None:
        poll = source.poll
        assert poll is not None
        while True:
            if not self._stream.owns(source.network):
                # Another detector has it, and writes of it.
                self._polled[name] = _Polled(self._polled[name].fetcher)
                await asyncio.sleep(IDLE_S)
                continue
            await self.read_once(name, source)
            await asyncio.sleep(self._pause_s(self._polled[name], poll))

    def _pause_s(self, polled: _Polled, poll: Poll) -> float:
        doubled = min(polled.failures, DOUBLINGS)
        slower: float = min(poll.every_s * 2**doubled, max(LONGEST_BACK_OFF_S, poll.every_s))
        return slower * random.uniform(0.9, 1.1)  # noqa: S311  # So that sources are not asked together.

    async def read_once(self, name: str, source: Source) -> None:
        """Read a source and write what it says into the log; a failure is noted, never raised."""
        polled = self._polled[name]
        try:
            if not polled.is_expected:
                await expect(self._stream, name, source)
                polled.is_expected = True
            reading = await self._read(source, polled)
            now_s = self._stream.clock.monotonic_s()
            if polled.losses != self._stream.losses:  # What was written may be gone unread.
                polled.losses, polled.written = self._stream.losses, {}
            written = {_id(one): (_text(one), now_s) for one in reading.reported}
            known = {
                key: before
                for key, before in polled.written.items()
                if now_s - before[1] < AGAIN_S and written.get(key, ("",))[0] == before[0]
            }
            reading.reported = [one for one in reading.reported if _id(one) not in known]
            await write_reading(self._stream, name, source, reading)
        except Exception as error:  # Whatever a source says: to end here would end all others.
            self._failed.labels(name).inc()
            why = error.detail if isinstance(error, Problem) else str(error)
            if not isinstance(error, httpx.HTTPError | CannotRead | Problem):
                log.exception("a source that nobody foresaw", source=name)
            polled.failures, polled.why = polled.failures + 1, str(why) or type(error).__name__
            log.warning("source not read", source=name, failures=polled.failures, why=polled.why)
            return
        for refused in reading.refused:
            log.warning(
                "part of a source refused", source=name, where=refused.where, why=refused.why
            )
        if polled.failures >= TELL_AFTER:
            log.info("source read again", source=name)
        polled.written = written | known
        polled.failures, polled.why = 0, ""
        self._read_at.labels(name).set_to_current_time()

    async def _read(self, source: Source, polled: _Polled) -> Reading:
        poll, now = source.poll, self._stream.clock.now()
        assert poll is not None
        body = await self._fetch(poll, poll.url, polled)
        if not poll.index:
            return FORMATS[source.format](body, source, now)
        whole = Reading(whole=True)
        links = cap.index(body)
        for number, link in enumerate(links):
            try:
                links[number] = at = urljoin(poll.url, link)
                one = FORMATS[source.format](await self._fetch(poll, at, polled), source, now)
            except (ValueError, httpx.HTTPStatusError) as error:  # CannotRead is one.
                whole.refuse(link, str(error))  # Which alert it was, nobody knows.
                continue
            whole.reported += one.reported
            whole.refused += one.refused
            whole.named += one.named
            whole.ignored += one.ignored
        for known in set(polled.bodies) - {poll.url, *links}:
            del polled.bodies[known], polled.validators[known]
        return whole

    async def _fetch(self, poll: Poll, url: str, polled: _Polled) -> bytes:
        validators = polled.validators.get(url, {}) if url in polled.bodies else {}
        content = poll.body_at(self._stream.clock.now())
        found = await polled.fetcher.fetch(url, validators=validators, content=content)
        if found.body is None:
            return polled.bodies[url]
        polled.bodies[url] = found.body
        polled.validators[url] = {
            ours: found.headers[theirs]
            for ours, theirs in (("if-none-match", "etag"), ("if-modified-since", "last-modified"))
            if theirs in found.headers
        }
        return found.body


def _id(one: Reported) -> str:
    return f"{one.event.network}\n{one.event.disruption_id}"


def _text(one: Reported) -> str:
    return one.event.model_dump_json(exclude={"occurred_at"})
