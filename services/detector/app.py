"""The detector, wired: settings, topics as they must be, stream, HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from pydantic import Field

from schemas.signing import SigningKeys
from schemas.topics import TOPICS
from schemas.vocabulary import Vocabulary
from services.detector import api, doors
from services.detector.orphans import keep_ending
from services.detector.pollers import Pollers
from services.detector.sources import Sources
from services.detector.stream import Stream
from services.detector.views import Views
from services.kit import broker as kafka
from services.kit import telemetry, web
from services.kit.members import Members
from services.kit.settings import Settings, Watched, read_file
from services.kit.topics import must_match

VERSION = "0.1.0"


class DetectorSettings(Settings):
    """What the detector is told besides."""

    sources: Path | None = Field(default=None, description="file of operations systems")
    signing_keys: Path | None = Field(
        default=None, description="file of keys that sign what is written to ops.disruptions"
    )

    @property
    def signing(self) -> SigningKeys:
        """Return the signing keys. Raises ValueError where the first may not sign commands."""
        found = read_file(self.signing_keys, SigningKeys)
        if found.keys and found.keys[0].may != "everything":
            why = "the first must be one that may sign everything: a detector signs by it"
            raise ValueError(f"{self.signing_keys}: keys: {why}")
        return found


def new_service(_: Settings) -> FastAPI:
    """Return the detector as an application; everything starts and stops with it."""
    settings = DetectorSettings()
    sources = read_file(settings.sources, Sources).sources
    vocabulary = Watched(settings.labels, Vocabulary)
    registry = telemetry.new_registry(version=VERSION)
    broker = kafka.new_broker(settings.cluster, client_id="interlock-detector")
    stream = Stream(
        broker,
        cluster=settings.cluster,
        instance=settings.instance,
        clock=telemetry.Clock(),
        registry=registry,
        crash=telemetry.crash,
        signing=settings.signing,
    )
    views = Views(broker, registry=registry, crash=telemetry.crash)
    pollers = Pollers(stream, sources, registry=registry)
    members = Members(broker, settings.cluster, crash=telemetry.crash)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await must_match(settings.cluster, TOPICS)
        async with kafka.connected(broker):
            await broker.start()
            async with kafka.background(
                telemetry.crash,
                members.keep_looking(),
                stream.keep_snapshots(),
                stream.keep_time(),
                views.read(),
                keep_ending(stream, views),
                *pollers.loops(),
            ):
                yield
            await pollers.aclose()
            await stream.on_revoked(list(stream.partitions))
            await members.hand_over()

    app = web.new_app(
        title="Interlock detector",
        version=VERSION,
        keys=web.Keys(settings.keys),
        registry=registry,
        readiness=stream.not_ready,
        remarks=lambda: views.remarks() | pollers.remarks(),
        lifespan=lifespan,
    )
    app.include_router(api.new_router(stream, views, vocabulary))
    app.include_router(doors.new_router(stream, sources))
    return app
