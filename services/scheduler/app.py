"""The scheduler, wired: settings, queue, stream, HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from pydantic import Field

from schemas.topics import TOPICS
from schemas.vocabulary import Vocabulary
from services.kit import broker as kafka
from services.kit import database, telemetry, web
from services.kit.members import Members
from services.kit.settings import Settings, Watched
from services.kit.topics import must_match
from services.scheduler.api import new_router
from services.scheduler.archive import Archive
from services.scheduler.hooks import Hooks
from services.scheduler.lane_store import LaneStore
from services.scheduler.store import SCHEMA, Store
from services.scheduler.stream import Stream

VERSION = "0.1.0"
VERSIONS = Path(__file__).with_name("migrations") / "versions"


class SchedulerSettings(Settings):
    """What the scheduler is told besides."""

    requests_per_minute: int = Field(
        default=6_000, ge=0, description="of each caller, to each process; 0: no limit"
    )
    archive_days: int = Field(default=30, ge=8, description="then a settled offer is archived")
    webhook_hosts: str = Field(
        default="", description="hosts of webhooks that may be at private addresses, by commas"
    )


def new_service(_: Settings) -> FastAPI:
    """Return the scheduler as an application; everything starts and stops with it."""
    settings = SchedulerSettings()
    clock, registry = telemetry.Clock(), telemetry.new_registry(version=VERSION)
    engine = database.new_engine(settings.database, schema=SCHEMA)
    store, lanes = Store(engine), LaneStore(engine)
    broker = kafka.new_broker(settings.cluster, client_id="interlock-scheduler")
    stream = Stream(
        broker,
        store,
        lanes,
        instance=settings.instance,
        clock=clock,
        registry=registry,
        crash=telemetry.crash,
    )

    members = Members(broker, settings.cluster, crash=telemetry.crash)
    archive = Archive(engine, days=settings.archive_days)
    allowed = frozenset(filter(None, settings.webhook_hosts.split(",")))
    hooks = Hooks(engine, clock=clock, registry=registry, allowed=allowed)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await must_match(settings.cluster, TOPICS)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(engine.dispose)
            stack.push_async_callback(hooks.aclose)
            await database.migrate(engine, schema=SCHEMA, versions=VERSIONS)
            await stack.enter_async_context(kafka.connected(broker))
            stack.push_async_callback(members.hand_over)
            await stream.start()
            stack.push_async_callback(stream.stop)
            await stack.enter_async_context(
                kafka.background(
                    telemetry.crash,
                    members.keep_looking(),
                    stream.keep_claiming(),
                    stream.keep_handing_over(),
                    stream.keep_recording(),
                    stream.keep_counting(),
                    stream.keep_commits(),
                    archive.keep_moving(),
                    hooks.keep_telling(),
                    hooks.keep_forgetting(),
                )
            )
            yield

    app = web.new_app(
        title="Interlock scheduler",
        version=VERSION,
        keys=web.Keys(settings.keys),
        registry=registry,
        readiness=stream.not_ready,
        per_minute=settings.requests_per_minute,
        lifespan=lifespan,
        outages=database.OUTAGES,
        mistakes=database.MISTAKES,
    )
    app.include_router(
        new_router(
            lanes, stream.accounts, Watched(settings.labels, Vocabulary), ask_back=stream.ask_back
        )
    )
    return app
