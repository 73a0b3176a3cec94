"""A change by HTTP: once for each Idempotency-Key, and only of the version that its caller saw."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Header, Request, Response
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.kit.web import Caller, Problem, field_problem
from services.scheduler.answers import Key, keep_answers, recall_answer

IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=200)]
IfMatch = Annotated[str | None, Header(max_length=40)]
_JSON = TypeAdapter(Any)
CREATED = 201


async def key_of(request: Request, caller: Caller, name: str | None) -> Key | None:
    """Return a request's Idempotency-Key with the digest of what it asks."""
    if name is None:
        return None
    body = await request.body()
    digest = hashlib.sha256(request.url.path.encode() + b"\n" + body).hexdigest()
    return Key(caller.name, name, digest)


async def once(
    engine: AsyncEngine, key: Key | None, act: Callable[[AsyncConnection], Awaitable[Any]]
) -> Response:
    """Act once for each Idempotency-Key; again, the kept answer is given."""
    async with engine.begin() as connection:
        if key is not None:
            first, status, kept = await recall_answer(connection, key)
            if first != key.request:
                raise field_problem("Idempotency-Key", "was used for another request")
            if status is not None:
                return JSONResponse(kept, status, headers={"idempotency-replayed": "true"})
        answer, content = answered(await act(connection))
        if key is not None:
            await keep_answers(connection, [(key, content)], status=CREATED)
    return answer


def answered(made: Any) -> tuple[Response, bytes]:
    """Return the answer that says what was made, and its content."""
    content = _JSON.dump_json(made)
    answer = Response(content, CREATED, headers=tag_of(made), media_type="application/json")
    return answer, content


def tag_of(answer: Any) -> dict[str, str]:
    """Return the ETag of what has a version (RFC 9110, 8.8.3)."""
    version = (
        answer.get("version") if isinstance(answer, dict) else getattr(answer, "version", None)
    )
    return {} if version is None else {"etag": f'"{version}"'}


def must_match(if_match: str | None, version: int) -> None:
    """Refuse a change of another version than the caller saw (RFC 9110, 13.1.1)."""
    if if_match is not None and if_match != "*" and if_match.strip() != f'"{version}"':
        raise Problem(412, f'it has changed since: it is version "{version}" now, read it again')
