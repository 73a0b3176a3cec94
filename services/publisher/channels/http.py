"""HTTP as all networks are asked: what each failure says of whether the post is there.

- No connection, or no room in the pool: nothing was sent.
- 401, 408, 420, 425, 429: nothing was published, and a later try may do. A token is a person's matter, so
  that a 401 is tried again and told, not given up.
- Other 4xx: refused for good.
- 5xx, a connection that breaks, no answer in time: nobody knows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal

import httpx

from services.publisher.channels import NotSent, Refused, Unknown
from services.publisher.clearance import Clearance
from services.publisher.rates import Told

TIMEOUT_S: Final = 10.0
BESIDE_OFFERS: Final = 7  # Connections of an account: four updates at once, take-backs, look-ups.
TOO_MANY: Final = frozenset({420, 429})
LATER: Final = TOO_MANY | {401, 408, 425}
SERVER_ERRORS: Final = 500
LONGEST_AFTER_S: Final = 3_600.0
DEFAULT_AFTER_S: Final = 30.0
SKEW: Final = timedelta(seconds=3)  # Two clocks may differ so; `Date` has whole seconds.
SAID_CHARS: Final = 200
Hear = Callable[[httpx.Response, datetime], Told | None]


def new_client(
    *, base_url: str = "", connections: int = BESIDE_OFFERS + 1, keeps: bool = True
) -> httpx.AsyncClient:
    """Return a client. `keeps` connections open: not where an unknown outcome cannot be mended."""
    # A kept connection may be closed by the other side in the moment of a request.
    limits = httpx.Limits(
        max_connections=connections, max_keepalive_connections=connections if keeps else 0
    )
    return httpx.AsyncClient(base_url=base_url, timeout=TIMEOUT_S, limits=limits)


async def ask(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    now: datetime,
    hear: Hear = lambda _, __: None,
    allowed: frozenset[int] = frozenset(),
    clearance: Clearance | None = None,
    **values: Any,
) -> tuple[httpx.Response, Told | None]:
    """Ask once; `allowed` are refusals that the caller reads itself. Raises as the table says.

    What publishes hands its `clearance` over: it is looked at behind the pool, the connection and its handshake. Raises
    TooLate where it has run out by then.
    """
    if clearance is not None:
        values["extensions"] = {"trace": _at_first_byte(clearance)}
    try:
        answer = await client.request(method, url, **values)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise NotSent(f"no connection: {str(error) or type(error).__name__}") from error
    except httpx.HTTPError as error:
        raise Unknown(f"{type(error).__name__}: {error}") from error
    except httpx.InvalidURL:
        raise NotSent("the account's address is none") from None  # It may hold the secret.
    told = hear(answer, now)
    if answer.is_success or answer.status_code in allowed:
        return answer, told
    raise failure(answer, told, now)


def _at_first_byte(clearance: Clearance) -> Callable[[str, object], Awaitable[None]]:
    """Return what httpcore calls at each of its steps (its "trace" extension); an error there ends the request."""

    async def on_step(name: str, _: object) -> None:
        if name.endswith(".send_request_headers.started"):
            await clearance.confirm()

    return on_step


def failure(answer: httpx.Response, told: Told | None, now: datetime) -> Exception:
    """Return what an answer that is no success means."""
    said = f"HTTP {answer.status_code}: {answer.text[:SAID_CHARS]}"
    if answer.status_code in LATER:
        after_s = _retry_after_s(answer, now)
        if answer.status_code in TOO_MANY and told is None:
            reset_at = now + timedelta(seconds=after_s or DEFAULT_AFTER_S)
            told = Told(limit=0, remaining=0, reset_at=reset_at, refused=True)
        return NotSent(said, retry_after_s=after_s, told=told)
    if answer.status_code >= SERVER_ERRORS:
        return Unknown(said)  # It may have failed after it took the post.
    return Refused(said)


def _retry_after_s(answer: httpx.Response, now: datetime) -> float:
    """Return what `Retry-After` says (RFC 9110, 10.2.3): seconds or a date."""
    given = answer.headers.get("retry-after", "").strip()
    try:
        seconds = float(given)
    except ValueError:
        try:
            at = parsedate_to_datetime(given)
        except ValueError:
            return 0.0
        seconds = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds()
    return min(LONGEST_AFTER_S, max(0.0, seconds))


def told_by(
    answer: httpx.Response,
    now: datetime,
    *,
    prefix: str,
    reset: Literal["epoch", "iso"] = "epoch",
    bucket: str = "create",
) -> Told | None:
    """Read `<prefix>-limit`, `-remaining` and `-reset`: an epoch, or ISO 8601."""
    try:
        limit = int(answer.headers[f"{prefix}-limit"])
        remaining = int(answer.headers[f"{prefix}-remaining"])
        given = answer.headers[f"{prefix}-reset"]
        is_iso = reset == "iso"
        reset_at = (
            datetime.fromisoformat(given) if is_iso else datetime.fromtimestamp(float(given), UTC)
        )
    except (KeyError, ValueError, OverflowError, OSError):
        return None
    if reset_at.tzinfo is None:
        reset_at = reset_at.replace(tzinfo=UTC)
    refused = answer.status_code in TOO_MANY
    return Told(
        limit=limit,
        remaining=remaining,
        reset_at=_by_our_clock(answer, reset_at, now),
        bucket=bucket,
        refused=refused,
    )


def is_within(answer: httpx.Response, at: str, *, age_s: float, now: datetime) -> bool:
    """Say whether what an answer dates so (ISO 8601) can have been made within so many seconds."""
    age = now - _by_our_clock(answer, datetime.fromisoformat(at), now)
    return age < timedelta(seconds=age_s) + SKEW


def _by_our_clock(answer: httpx.Response, at: datetime, now: datetime) -> datetime:
    """Correct a time of the server's by the difference that its `Date` shows."""
    try:
        theirs = parsedate_to_datetime(answer.headers["date"])
    except (KeyError, ValueError):
        return at
    skew = now - theirs if theirs.tzinfo else timedelta(0)
    return at + skew if abs(skew) > SKEW else at
