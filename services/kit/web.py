"""HTTP as every service speaks it: keys and roles, problem details, health, metrics, one access log.

Every route states its role through `require`, or `public` where anybody may; a test reads the table
of routes. Errors are RFC 9457 problem details that name the field.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import structlog
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.kit.rates import PerMinute
from services.kit.telemetry import trace_id

BODY_BYTES: Final = 1_048_576
HEAD_BYTES: Final = 65_536
BODY_S: Final = 30.0  # Who is slower keeps a connection, and memory, for nothing.
KEYS_CHECK_S: Final = 1.0
ROLES: Final = ("emitter", "operations", "marketing", "approver", "viewer", "admin")
PROBLEM: Final = "application/problem+json"


class ProblemDetails(BaseModel):
    """An error (RFC 9457, section 3); `errors` name what is wrong by JSON pointer."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] = []


PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    status: {
        "description": HTTPStatus(status).phrase,
        "content": {PROBLEM: {"schema": ProblemDetails.model_json_schema()}},
    }
    for status in (400, 401, 403, 404, 405, 408, 409, 412, 413, 415, 422, 429, 500, 503)
}
"""What any route may answer besides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks: the name stands in the log as the author. No networks means all of them."""

    name: str
    roles: frozenset[str]
    networks: frozenset[str] = frozenset()
    development: bool = False

    def may_name(self, network: str) -> bool:
        return not self.networks or network in self.networks


class Keys:
    """API keys by their SHA-256, read from a file and read again when it changes."""

    def __init__(self, path: Path) -> None:
        self._path, self._looked_s = path, float("-inf")
        self._stamp: tuple[int, int] | None = None
        self._callers: dict[str, Caller] = {}

    def caller(self, key: str) -> Caller | None:
        self._look()
        return self._callers.get(hashlib.sha256(key.encode()).hexdigest())

    def _look(self) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s < KEYS_CHECK_S:
            return
        self._looked_s = now_s
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            if stamp != self._stamp:
                self._callers, self._stamp = _read_keys(self._path), stamp
        except (OSError, ValueError, KeyError, TypeError) as error:
            # A file half written or gone takes nobody's access away; the log says so.
            structlog.get_logger().error("keys file", path=str(self._path), error=str(error))


def _read_keys(path: Path) -> dict[str, Caller]:
    return {
        entry["sha256"]: Caller(
            name=entry["name"],
            roles=frozenset(entry["roles"]),
            networks=frozenset(entry.get("networks", ())),
            development=bool(entry.get("development", False)),
        )
        for entry in json.loads(path.read_text())["keys"]
    }


class Problem(HTTPException):
    """An error a caller can act on; `errors` name fields by JSON pointer."""

    def __init__(
        self, status: int, detail: str, *, errors: list[dict[str, str]] | None = None
    ) -> None:
        super().__init__(status, detail)
        self.errors = errors or []


def field_problem(field: str, detail: str, *, status: int = 422) -> Problem:
    """Return a problem about one field of the body."""
    errors = [{"pointer": f"/{field}", "detail": detail}]
    return Problem(status, f"{field}: {detail}", errors=errors)


def require(*roles: str) -> Any:
    """State who may call a route: one of these roles. `admin` does not stand in for them."""
    assert set(roles) <= set(ROLES)

    async def caller_of(request: Request) -> Caller:  # Awaited: others run in threads.
        return authenticated(request, frozenset(roles))

    caller_of.roles = frozenset(roles)  # type: ignore[attr-defined]  # Read by the table of routes.
    return Depends(caller_of)


async def public() -> None:
    """State that anybody may call a route."""


public.roles = frozenset({"public"})  # type: ignore[attr-defined]  # Read by the table of routes.


def authenticated(request: Request, roles: frozenset[str], *, key: str | None = None) -> Caller:
    """Return who asks, by a key in the Authorization header (Bearer, or Basic's password).

    A key that came another way is given as `key`. Raises a problem of 401 or 403.
    """
    keys: Keys = request.app.state.keys
    given = key or _key_of(request.headers.get("authorization", ""))
    caller = keys.caller(given) if given else None
    if caller is None:
        raise HTTPException(
            HTTPStatus.UNAUTHORIZED,
            "an API key is needed: send the header 'Authorization: Bearer KEY'",
            headers={"WWW-Authenticate": "Bearer"},
        )
    if caller.development and not _from_loopback(request):
        raise Problem(HTTPStatus.FORBIDDEN, "development keys work from this machine only")
    if not roles & caller.roles:
        raise Problem(
            HTTPStatus.FORBIDDEN,
            f"{caller.name} has the roles {sorted(caller.roles)}; one of {sorted(roles)} is needed",
        )
    _count(request, caller)
    return caller


def _count(request: Request, caller: Caller) -> None:
    rates: PerMinute | None = request.app.state.rates
    if rates is None:
        return
    left = rates.take(caller.name)
    if left.is_over:
        why = f"{caller.name} may ask {left.most} times a minute: go on in {left.reset_s} s"
        raise HTTPException(HTTPStatus.TOO_MANY_REQUESTS, why, headers=left.headers())
    request.state.rate = left.headers()


def _key_of(authorization: str) -> str:
    scheme, _, text = authorization.partition(" ")
    match scheme.lower():
        case "bearer":
            return text.strip()
        case "basic":  # Of senders that know no other; the user's name says nothing.
            try:
                return base64.b64decode(text, validate=True).decode().partition(":")[2]
            except ValueError:
                return ""
        case _:
            return ""


def _from_loopback(request: Request) -> bool:
    if request.client is None:
        return False
    try:
        return ip_address(request.client.host).is_loopback
    except ValueError:
        return False


Readiness = Callable[[], Awaitable[dict[str, str]]]
"""Answers with what is not ready yet, each with its reason; empty means ready."""
Remarks = Callable[[], dict[str, str]]
"""Says what is not as it should be, although the service is ready."""


def new_app(
    *,
    title: str,
    version: str,
    keys: Keys,
    registry: CollectorRegistry,
    readiness: Readiness,
    lifespan: Any,
    remarks: Remarks = dict,
    per_minute: int = 0,
    outages: tuple[type[Exception], ...] = (),
    mistakes: tuple[type[Exception], ...] = (),
) -> FastAPI:
    """Return an application with what every service has; `per_minute`: of each caller, 0: no limit."""
    app = FastAPI(
        title=title,
        version=version,
        lifespan=lifespan,
        responses=PROBLEMS,
        docs_url=None,  # These pages load scripts from somebody else's servers.
        redoc_url=None,
    )
    app.state.keys = keys
    app.state.rates = PerMinute(per_minute) if per_minute else None
    app.add_exception_handler(StarletteHTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    for outage in outages:
        app.add_exception_handler(outage, _on_outage)
    for mistake in (*mistakes, Exception):
        app.add_exception_handler(mistake, _on_crash)
    seconds = Histogram(
        "interlock_http_seconds", "Time to answer.", ["method", "status"], registry=registry
    )
    app.add_middleware(Edge, seconds=seconds)

    @app.get("/healthz", dependencies=[Depends(public)])
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", dependencies=[Depends(public)])
    async def readyz(response: Response) -> dict[str, Any]:
        async with asyncio.timeout(5):
            missing = await readiness()
        if missing:
            response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        status = "not ready" if missing else "ready"
        found = remarks()
        return {"status": status, "missing": missing} | ({"remarks": found} if found else {})

    @app.get(
        "/metrics", response_class=PlainTextResponse, dependencies=[require("viewer", "admin")]
    )
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return app


class Edge:
    """The outermost layer: it limits the body, however it comes, and logs one line per request."""

    def __init__(self, app: ASGIApp, *, seconds: Histogram) -> None:
        self.app, self.seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        app = _NO_NUL if b"%00" in scope["raw_path"] + scope["query_string"] else self.app
        begun_s, status, taken, is_whole = time.monotonic(), 500, 0, False

        async def limited() -> Message:
            nonlocal taken, is_whole
            left_s = begun_s + BODY_S - time.monotonic()
            try:
                async with asyncio.timeout(None if is_whole else left_s):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"the body did not come within {BODY_S:.0f} s") from None
            is_whole = not message.get("more_body", False)
            taken += len(message.get("body", b""))
            if taken > BODY_BYTES:
                raise HTTPException(413, f"the body may have {BODY_BYTES} bytes at most")
            return message

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            if message["type"] == "http.response.start":
                rate: dict[str, str] = scope.get("state", {}).get("rate", {})
                limits = [(name.encode(), value.encode()) for name, value in rate.items()]
                message["headers"] = [*message.get("headers", ()), *limits]
            await send(message)

        try:
            await app(scope, limited, noted)
        finally:
            took_s = time.monotonic() - begun_s
            self.seconds.labels(scope["method"], str(status)).observe(took_s)
            structlog.get_logger().info(
                "answered",
                method=scope["method"],
                path=scope["path"],
                status=status,
                ms=round(took_s * 1000, 2),
                trace=trace_id(Headers(scope=scope).get("traceparent", "")),
            )


class ShortHeads(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, which reads headers without end: who sends more than HEAD_BYTES is refused."""

    _head: int | None = 0  # Read of a head that has not ended; None: between heads.

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head is not None:
            self._head += len(data)
            if self._head > HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response(f"the headers may have {HEAD_BYTES} bytes at most")

    def on_message_begin(self) -> None:
        self._head = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head = None
        super().on_headers_complete()


def problem_answer(
    status: int, detail: str, *, errors: Any = None, headers: Any = None
) -> JSONResponse:
    """Return problem details (RFC 9457, section 3)."""
    title = HTTPStatus(status).phrase
    body: Any = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    if errors:
        body["errors"] = errors
    return JSONResponse(body, status, headers=headers, media_type=PROBLEM)


_NO_NUL: Final = problem_answer(400, "an address has no NUL (%00)")


async def _on_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    errors, said = getattr(error, "errors", None), str(error.detail)
    return problem_answer(error.status_code, said, errors=errors, headers=error.headers)


async def _on_validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [
        {"pointer": "/" + "/".join(map(str, e["loc"][1:])), "detail": e["msg"], "in": e["loc"][0]}
        for e in error.errors()
    ]
    detail = "; ".join(f"{e['pointer'][1:] or e['in']}: {e['detail']}" for e in errors)
    return problem_answer(422, detail, errors=errors)


async def _on_outage(_: Request, error: Exception) -> Response:
    structlog.get_logger().error("what a request needs does not answer", error=repr(error))
    why = "what this needs does not answer: it may or may not be done, look before you ask again"
    return problem_answer(503, why, headers={"Retry-After": "2"})


async def _on_crash(_: Request, error: Exception) -> Response:
    structlog.get_logger().error("a request failed", exc_info=error)
    return problem_answer(500, "Interlock made a mistake; its log says which")
