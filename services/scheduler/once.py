"""A change by HTTP: once for each Idempotency-Key, and only of the version that its caller saw."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Header, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.kit.web import Caller, Problem, field_problem
from services.scheduler.answers import keep_answer, recall_answer

IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=200)]
IfMatch = Annotated[str | None, Header(max_length=40)]
_JSON = TypeAdapter(Any)


async def once(
    engine: AsyncEngine,
    request: Request,
    caller: Caller,
    key: str | None,
    act: Callable[[AsyncConnection], Awaitable[Any]],
) -> Response:
    """Act once for each Idempotency-Key; again, the kept answer is given."""
    body = await request.body()
    wanted = hashlib.sha256(request.url.path.encode() + b"\n" + body).hexdigest()
    async with engine.begin() as connection:
        if key is not None:
            first, status, kept = await recall_answer(
                connection, caller=caller.name, key=key, request=wanted
            )
            if first != wanted:
                raise field_problem("Idempotency-Key", "was used for another request")
            if status is not None:
                return JSONResponse(kept, status, headers={"idempotency-replayed": "true"})
        answer = jsonable_encoder(await act(connection))
        if key is not None:
            await keep_answer(
                connection,
                caller=caller.name,
                key=key,
                status=201,
                answer=_JSON.dump_json(answer).decode(),
            )
    return JSONResponse(answer, 201, headers=tag_of(answer))


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
