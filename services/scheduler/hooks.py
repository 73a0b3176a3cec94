"""Webhooks out, as Standard Webhooks 1.0 has them: signed, in order, again until they are taken.

A receiver that does not answer is asked again, later each time up to an hour; after a day of that it is
stopped, which its listing says, and a replay starts it again. Each event is told once at least: its id is
the `webhook-id`.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

import httpx
import structlog
from prometheus_client import CollectorRegistry, Counter
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit import outbound
from services.kit.telemetry import Clock
from services.scheduler.event_store import (
    LEASE_S,
    Position,
    forget_old,
    lease_webhook,
    read_events,
    record_told,
)

LOOK_S: Final = 0.5
AT_ONCE: Final = 8
TELLING_S: Final = LEASE_S / 2  # No call is begun later: nobody else tells the same meanwhile.
FORGET_S: Final = 60.0
FIRST_WAIT_S: Final = 2.0
LONGEST_WAIT_S: Final = 3_600.0
PATIENCE_S: Final = 86_400.0
ANSWER_CHARS: Final = 300
log = structlog.get_logger()


class Hooks:
    """Sends events to the webhooks; any scheduler serves any of them, one at a time."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        clock: Clock,
        registry: CollectorRegistry,
        allowed: frozenset[str] = frozenset(),
    ) -> None:
        self.engine, self.clock = engine, clock
        self.client = outbound.new_client(allowed=allowed)
        self.calls = Counter(
            "interlock_webhook_calls_total", "Webhook calls.", ["end"], registry=registry
        )

    async def keep_telling(self) -> None:
        """Tell webhooks what happened, a few at a time, for ever."""
        room, tasks = asyncio.Semaphore(AT_ONCE), set[asyncio.Task[None]]()
        while True:
            async with room:
                try:
                    hook = await lease_webhook(self.engine)
                except (SQLAlchemyError, OSError) as error:
                    log.error("webhooks", error=str(error))
                    hook = None
            if hook is None:
                await asyncio.sleep(LOOK_S)
                continue
            task = asyncio.create_task(self._tell_in(room, hook))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _tell_in(self, room: asyncio.Semaphore, hook: Any) -> None:
        async with room:
            try:
                await self._tell(hook)
            except (SQLAlchemyError, OSError) as error:  # Its lease ends, and it is told again.
                log.error("webhooks", error=str(error))

    async def keep_forgetting(self) -> None:
        """Forget old events, for ever."""
        while True:
            await asyncio.sleep(FORGET_S)
            try:
                await forget_old(self.engine)
            except (SQLAlchemyError, OSError) as error:
                log.error("old events", error=str(error))

    async def _tell(self, hook: Any) -> None:
        """Tell one webhook what it does not know, until it does not answer."""
        begin, begun_s = Position(int(hook["xact"]), hook["number"]), self.clock.monotonic_s()
        at, failures, answer, wait_s = begin, 0, "", 0.0
        for event in await read_events(self.engine, begin, types=[]):
            if self.clock.monotonic_s() - begun_s > TELLING_S:
                break
            if not hook["types"] or event["type"] in hook["types"]:
                answer, is_taken = await self._call(hook, event)
                self.calls.labels("taken" if is_taken else "failed").inc()
                if not is_taken:
                    failures = hook["failures"] + 1
                    wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(failures - 1, 12))
                    break
            at = Position(int(event["xact"]), event["number"])
        stopped = await record_told(
            self.engine, hook["webhook_id"], at, begin=begin, answer=answer[:ANSWER_CHARS],
            failures=failures, wait_s=wait_s, patience_s=PATIENCE_S,
        )  # fmt: skip
        if failures:
            log.warning(
                "webhook", id=hook["webhook_id"], why=answer, again_in_s=wait_s, stopped=stopped
            )

    async def _call(self, hook: Any, event: Any) -> tuple[str, bool]:
        event_id = f"{event['xact']}-{event['number']}"
        at = event["at"].isoformat()
        body = json.dumps({"type": event["type"], "timestamp": at, "data": event["data"]}).encode()
        headers = outbound.signed_headers(
            [hook["secret"]], message_id=event_id, at=self.clock.now(), body=body
        )
        try:
            answer = await self.client.post(hook["url"], content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"{type(error).__name__}: {error}", False
        return f"HTTP {answer.status_code}", answer.is_success

    async def aclose(self) -> None:
        """End the connections."""
        await self.client.aclose()
