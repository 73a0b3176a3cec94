"""Every route of every service states who may call it; nobody else may."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry
from sqlalchemy import exc

from ops.embedded.files import make_accounts
from services.detector import api as detector_api
from services.detector.app import new_service as new_detector
from services.detector.stream import Stream
from services.detector.views import Views
from services.kit import web
from services.kit.broker import new_broker
from services.kit.cluster import Cluster
from services.kit.database import MISTAKES, OUTAGES
from services.kit.settings import Settings
from services.kit.telemetry import Clock
from services.kit.web import ROLES, Keys, new_app
from services.publisher.app import new_service as new_publisher
from services.scheduler.app import new_service as new_scheduler

READING = {"viewer", "operations", "marketing", "approver", "admin"}
TABLE: dict[str, set[str]] = {
    "GET /healthz": {"public"},
    "GET /readyz": {"public"},
    "GET /metrics": {"viewer", "admin"},
    "POST /v1/events": {"emitter"},
    "POST /v1/events/{source}": {"emitter"},
    "POST /v2/enqueue": {"emitter"},
    "POST /api/v2/alerts": {"emitter"},
    "GET /api/v2/alerts": READING | {"emitter"},
    "GET /api/v2/silences": READING | {"emitter"},
    "GET /api/v2/status": READING | {"emitter"},
    "POST /sources/{source}/api/v2/alerts": {"emitter"},
    "GET /sources/{source}/api/v2/alerts": READING | {"emitter"},
    "GET /sources/{source}/api/v2/silences": READING | {"emitter"},
    "GET /sources/{source}/api/v2/status": READING | {"emitter"},
    "GET /v1/holds": READING | {"emitter"},
    "POST /v1/holds": {"operations"},
    "POST /v1/holds/{hold_id}/release": {"operations"},
    "GET /v1/incidents": READING | {"emitter"},
    "GET /v1/incidents/{incident_id}": READING | {"emitter"},
    "POST /v1/incidents": {"operations"},
    "POST /v1/incidents/{incident_id}/updates": {"operations"},
    "POST /v1/incidents/{incident_id}/updates/{update_id}/approve": {"operations"},
    "POST /v1/incidents/{incident_id}/resolve": {"operations"},
    "POST /v1/incidents/{incident_id}/merge": {"operations"},
    "POST /v1/incidents/{incident_id}/split": {"operations"},
    "GET /v1/policy": READING | {"emitter"},
    "PUT /v1/policy": {"admin"},
    "POST /v1/campaigns": {"marketing"},
    "GET /v1/campaigns": READING,
    "GET /v1/campaigns/{campaign_id}": READING,
    "POST /v1/campaigns/{campaign_id}/cancel": {"marketing"},
    "PATCH /v1/campaigns/{campaign_id}": {"marketing"},
    "POST /v1/campaigns/{campaign_id}/submit": {"marketing"},
    "POST /v1/campaigns/{campaign_id}/approve": {"approver"},
    "POST /v1/campaigns/{campaign_id}/reject": {"approver"},
    "POST /v1/campaigns/{campaign_id}/start": {"marketing"},
    "POST /v1/campaigns/{campaign_id}/pause": {"marketing"},
    "POST /v1/campaigns/{campaign_id}/resume": {"marketing"},
    "POST /v1/campaigns/{campaign_id}/finish": {"marketing"},
    "POST /v1/campaigns/{campaign_id}/posts": {"marketing"},
    "POST /v1/campaigns/{campaign_id}/posts/dry-run": {"marketing"},
    "PATCH /v1/posts/{post_id}": {"marketing"},
    "POST /v1/posts/{post_id}/reject": {"approver"},
    "POST /v1/reviews": {"approver"},
    "POST /v1/campaigns/{campaign_id}/import": {"marketing"},
    "GET /v1/campaigns/{campaign_id}/export": READING,
    "GET /v1/posts/{post_id}/why": READING,
    "POST /v1/holds/dry-run": READING,
    "POST /v1/rehearsals": READING,
    "GET /v1/campaigns/{campaign_id}/recovery": READING,
    "GET /v1/posts": READING,
    "GET /v1/posts/{post_id}": READING,
    "POST /v1/posts/{post_id}/cancel": {"marketing"},
    "POST /v1/posts/{post_id}/approve": {"approver"},
    "POST /v1/posts/{post_id}/retract": {"marketing"},
    "GET /v1/events": READING,
    "GET /v1/events/stream": READING,
    "GET /v1/webhooks": READING,
    "POST /v1/webhooks": {"admin"},
    "DELETE /v1/webhooks/{webhook_id}": {"admin"},
    "POST /v1/webhooks/{webhook_id}/replay": {"admin"},
    "GET /v1/labels": READING,
    "GET /v1/labels/{name}": READING,
    "GET /v1/summary": READING,
    "GET /v1/calendar": READING,
    "GET /v1/calendar.ics": READING,
    "GET /v1/ledger": READING,
    "GET /v1/ledger/{post_id}": READING,
    "GET /v1/gate": READING,
    "GET /v1/accounts": READING,
    "POST /v1/take-back/dry-run": READING,
    "POST /subscribe": {"public"},
    "POST /push": {"public"},
    "POST /push/leave": {"public"},
    "GET /confirm/{secret}": {"public"},
    "POST /confirm/{secret}": {"public"},
    "GET /unsubscribe/{secret}": {"public"},
    "POST /unsubscribe/{secret}": {"public"},
}


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, FastAPI]]:
    """Return the three applications, not started: who may call is decided before anything else."""
    folder = tmp_path_factory.mktemp("routes")
    keys: list[dict[str, Any]] = [
        {"name": role, "roles": [role], "sha256": _sha256(role)} for role in ROLES
    ]
    keys.append(
        {"name": "dev", "roles": list(ROLES), "sha256": _sha256("dev"), "development": True}
    )
    keys.append(
        {"name": "a", "roles": ["emitter"], "sha256": _sha256("a"), "networks": ["northlink"]}
    )
    (folder / "keys.json").write_text(json.dumps({"keys": keys}))
    make_accounts(folder, sandbox=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTERLOCK_KEYS", str(folder / "keys.json"))
        patch.setenv("INTERLOCK_ACCOUNTS", str(folder / "accounts.yaml"))
        patch.setenv("INTERLOCK_DATABASE", "postgresql://nobody@127.0.0.1:1/none")
        patch.setenv("INTERLOCK_KAFKA", "127.0.0.1:1")
        makers = {"detector": new_detector, "scheduler": new_scheduler, "publisher": new_publisher}
        yield {name: make(Settings()) for name, make in makers.items()}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def routes(app: FastAPI) -> dict[str, APIRoute]:
    """Return the routes of an application, those of its routers too."""
    found: dict[str, APIRoute] = {}

    def walk(items: Any) -> None:
        for route in items:
            if isinstance(route, APIRoute):
                for method in route.methods or ():
                    found[f"{method} {route.path}"] = route
            elif hasattr(route, "original_router"):
                walk(route.original_router.routes)

    walk(app.routes)
    return found


def roles_of(route: APIRoute) -> set[str]:
    stated = [getattr(d.call, "roles", None) for d in route.dependant.dependencies]
    found = [roles for roles in stated if roles is not None]
    assert len(found) == 1, f"{route.path} states its roles {len(found)} times"
    return set(found[0])


def test_every_route_states_its_roles_as_in_the_table(apps: dict[str, FastAPI]) -> None:
    stated = {name: roles_of(r) for app in apps.values() for name, r in routes(app).items()}
    assert stated == TABLE


@pytest.mark.parametrize("service", ["detector", "scheduler", "publisher"])
async def test_nobody_else_may(apps: dict[str, FastAPI], service: str) -> None:
    app = apps[service]
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for name in routes(app):
            method, path = name.split()
            if TABLE[name] == {"public"}:
                continue
            assert (await client.request(method, path)).status_code == 401, name
            for role in set(ROLES) - TABLE[name]:
                answer = await client.request(
                    method, path, headers={"authorization": f"Bearer {role}"}
                )
                assert answer.status_code == 403, f"{role} may {name}"


async def test_a_development_key_works_from_this_machine_only(apps: dict[str, FastAPI]) -> None:
    headers = {"authorization": "Bearer dev"}
    for host, status in (("127.0.0.1", 200), ("10.0.0.7", 403)):
        transport = httpx.ASGITransport(apps["detector"], client=(host, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            assert (await client.get("/v1/policy", headers=headers)).status_code == status


@pytest.mark.parametrize("path", ["/v1/holds", "/v1/incidents", "/v1/incidents/inc-0-0-0"])
async def test_what_was_not_read_yet_is_not_called_empty(
    path: str, apps: dict[str, FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector_api, "PATIENCE_S", 0.05)
    transport = httpx.ASGITransport(apps["detector"], client=("127.0.0.1", 1))
    headers = {"authorization": "Bearer viewer"}
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get(path, headers=headers)
    assert answer.status_code == 503
    assert "still being read" in answer.json()["detail"]


async def test_events_do_not_wait_for_what_was_not_read_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster, registry = Cluster("127.0.0.1:1"), CollectorRegistry()
    broker = new_broker(cluster, client_id="test")
    stream = Stream(
        broker, cluster=cluster, instance="test", clock=Clock(),
        registry=registry, crash=lambda *_: None,
    )  # fmt: skip
    views = Views(broker, registry=registry, crash=lambda *_: None)

    async def no_lag() -> int:
        return 0

    monkeypatch.setattr(stream.disruptions, "lag", no_lag)
    stream.assigned_once = True
    assert not views.are_read
    assert await stream.not_ready() == {}
    assert "views" in views.remarks()


@pytest.mark.parametrize(
    ("service", "path"), [("scheduler", "/v1/campaigns"), ("publisher", "/v1/ledger")]
)
async def test_where_the_database_does_not_answer_nobody_claims_to_know(
    service: str, path: str, apps: dict[str, FastAPI]
) -> None:
    transport = httpx.ASGITransport(apps[service], client=("127.0.0.1", 1))
    headers = {"authorization": "Bearer viewer"}
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get(path, headers=headers)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "may or may not be done" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (exc.DBAPIError("SELECT 1", None, Exception("the system is shutting down")), 503),
        (exc.OperationalError("SELECT 1", None, Exception("the connection broke")), 503),
        (exc.TimeoutError(), 503),
        (exc.IntegrityError("INSERT", None, Exception("a key twice")), 500),
        (exc.ProgrammingError("SELEC", None, Exception("syntax")), 500),
    ],
)
async def test_a_mistake_of_ours_is_no_outage(raised: Exception, status: int) -> None:
    async def ready() -> dict[str, str]:
        raise raised

    app = new_app(
        title="t", version="0", keys=Keys(Path("none")), registry=CollectorRegistry(),
        readiness=ready, lifespan=None, outages=OUTAGES, mistakes=MISTAKES,
    )  # fmt: skip
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/readyz")
    assert answer.status_code == status
    assert "key twice" not in answer.text


async def test_a_key_speaks_for_its_networks_only(apps: dict[str, FastAPI]) -> None:
    event = {"disruption_id": "d", "network": "southlink", "status": "opened", "title": "x"}
    headers = {
        "authorization": "Bearer a",
        "content-type": "application/json",
        "ce-specversion": "1.0",
        "ce-id": "1",
        "ce-source": "/s",
        "ce-type": "interlock.disruption.v1",
    }
    transport = httpx.ASGITransport(apps["detector"], client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.post("/v1/events", json=event, headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (403, "/0/network")


@pytest.mark.parametrize("path", ["/unsubscribe/a%00b", "/v1/ledger/%00", "/v1/ledger?state=%00"])
async def test_an_address_with_a_nul_is_the_callers_mistake(
    apps: dict[str, FastAPI], path: str
) -> None:
    transport = httpx.ASGITransport(apps["publisher"], client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get(path, headers={"authorization": "Bearer viewer"})
    assert (answer.status_code, answer.json()["status"]) == (400, 400)


async def test_a_body_that_is_too_large_is_refused(apps: dict[str, FastAPI]) -> None:
    async def endless() -> Any:
        for _ in range(40):
            yield b"x" * 65_536

    transport = httpx.ASGITransport(apps["detector"], client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        headers = {"authorization": "Bearer emitter"}
        named = await client.post("/v1/events", content=b"x" * 2_000_000, headers=headers)
        streamed = await client.post("/v1/events", content=endless(), headers=headers)
    assert (named.status_code, streamed.status_code) == (413, 413)


async def test_a_body_that_does_not_come_is_not_waited_for(
    apps: dict[str, FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "BODY_S", 0.05)

    async def never() -> Any:
        yield b"{"
        await asyncio.Event().wait()

    transport = httpx.ASGITransport(apps["detector"], client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        headers = {"authorization": "Bearer emitter"}
        answer = await client.post("/v1/events", content=never(), headers=headers)
    assert (answer.status_code, answer.json()["title"]) == (408, "Request Timeout")


def test_a_key_that_is_added_works_and_one_that_is_removed_does_not(tmp_path: Path) -> None:
    from ops.embedded.keys import add_key, remove_key

    file = tmp_path / "keys.json"
    key = add_key(file, name="grafana", roles=("viewer",))
    assert key not in file.read_text()
    caller = web.Keys(file).caller(key)
    assert caller is not None
    assert caller.roles == {"viewer"}
    assert remove_key(file, "grafana")
    assert web.Keys(file).caller(key) is None
    with pytest.raises(ValueError, match="there is no role king"):
        add_key(file, name="x", roles=("king",))


async def test_a_caller_that_asks_too_often_is_told_when_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(
        json.dumps({"keys": [{"name": "ada", "roles": ["viewer"], "sha256": _sha256("ada")}]})
    )

    async def ready() -> dict[str, str]:
        return {}

    app = new_app(
        title="t", version="1", keys=Keys(tmp_path / "keys.json"), registry=CollectorRegistry(),
        readiness=ready, lifespan=None, per_minute=2,
    )  # fmt: skip
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        client.headers["authorization"] = "Bearer ada"
        answers = [await client.get("/metrics") for _ in range(3)]
        assert [one.status_code for one in answers] == [200, 200, 429]
        assert [one.headers["ratelimit"] for one in answers] == [
            '"minute";r=1;t=60', '"minute";r=0;t=60', '"minute";r=0;t=60',
        ]  # fmt: skip
        assert answers[2].headers["retry-after"] == "60"
        assert answers[2].json()["detail"] == "ada may ask 2 times a minute: go on in 60 s"
        assert (await client.get("/healthz")).is_success, "whoever has no key is not counted"
