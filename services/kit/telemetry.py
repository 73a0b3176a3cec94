"""Logs, trace ids, metrics and clocks: what a service says about itself."""

from __future__ import annotations

import logging
import os
import sys
import time
from datetime import UTC, datetime
from typing import NoReturn

import structlog
from prometheus_client import CollectorRegistry, Gauge, ProcessCollector

TRACE_PARTS = 4
SELDOM_S = 10.0
STEADY = getattr(
    time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC
)  # On Linux, the latter stops in sleep.
CRASHED = 70  # EX_SOFTWARE: a supervisor starts us again, and the log replays.


class Clock:
    """The one place that reads time."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """Return seconds that pass while the machine sleeps, too; the same in all its processes."""
        return time.clock_gettime(STEADY)


def set_up_logs(*, service: str, level: str, style: str) -> None:
    """Send structured logs to standard error, one line each, with the service's name."""
    renderer = (
        structlog.processors.JSONRenderer()
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Seldom())
    form = "%(asctime)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.WARNING, handlers=[handler], format=form)


class Seldom(logging.Filter):
    """Lets a library say the same thing once in ten seconds: a lost broker must not fill a disk."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        what = (record.name, str(record.msg))
        now_s = time.monotonic()
        if now_s - self._said.get(what, -SELDOM_S) < SELDOM_S:
            return False
        self._said[what] = now_s
        return True


def trace_id(traceparent: str) -> str:
    """Return the trace id of a W3C traceparent, to be logged; empty where there is none."""
    parts = traceparent.split("-")
    return parts[1] if len(parts) == TRACE_PARTS else ""


def new_registry(*, version: str) -> CollectorRegistry:
    """Begin a service's metrics with its process's own."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    build = Gauge("interlock_build_info", "Always 1.", ["version"], registry=registry)
    build.labels(version).set(1)
    return registry


def crash(why: str, error: BaseException | None = None) -> NoReturn:
    """End this process at once. A state we do not understand must not go on."""
    structlog.get_logger().critical("crashing on purpose", why=why, exc_info=error)
    sys.stderr.flush()
    os._exit(CRASHED)
