"""The detector, wired: settings, topics as they must be, stream, HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from schemas.topics import TOPICS
from services.detector import api, doors
from services.detector.stream import Stream
from services.kit import broker as kafka
from services.kit import telemetry, web
from services.kit.settings import Settings

VERSION = "0.1.0"


def new_service(settings: Settings) -> FastAPI:
    """Return the detector as an application; everything starts and stops with it."""
    registry = telemetry.new_registry(version=VERSION)
    broker = kafka.new_broker(settings.kafka, client_id="interlock-detector")
    stream = Stream(
        broker,
        servers=settings.kafka,
        instance=settings.instance,
        clock=telemetry.Clock(),
        registry=registry,
        crash=telemetry.crash,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await kafka.must_match(settings.kafka, TOPICS)
        async with broker:
            await broker.start()
            async with kafka.background(
                telemetry.crash, stream.keep_snapshots(), stream.keep_time()
            ):
                yield
            await stream.on_revoked(list(stream.partitions))

    app = web.new_app(
        title="Interlock detector",
        version=VERSION,
        keys=web.Keys(settings.keys),
        registry=registry,
        readiness=stream.not_ready,
        lifespan=lifespan,
    )
    app.include_router(api.new_router(stream))
    app.include_router(doors.new_router(stream))
    return app
