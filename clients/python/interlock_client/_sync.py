"""The client that blocks, made from `_async.py` by `python -m tests.client`."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any, Self

import httpx

from interlock_client.types import (
    Action,
    Campaign,
    Event,
    NewPost,
    Page,
    Post,
    Refused,
    State,
    Suggestion,
    Why,
)

TRIES = 4
FIRST_WAIT_S = 0.5
AGAIN = frozenset({429, 502, 503, 504})


class Interlock:
    """A scheduler at an address, asked with an API key."""

    def __init__(
        self, url: str, *, key: str, client: httpx.Client | None = None, timeout_s: float = 30
    ) -> None:
        self._client = client or httpx.Client(timeout=timeout_s)
        self._url, self._headers = url.rstrip("/"), {"authorization": f"Bearer {key}"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connections."""
        self._client.close()

    def add_campaign(self, *, name: str, **values: Any) -> Campaign:
        """Begin a campaign; it runs at once unless `draft` or `needs_approval` is said."""
        made: Campaign = self._make("/v1/campaigns", {"name": name} | values)
        return made

    def campaigns(self) -> list[Campaign]:
        """Return all campaigns, each with its counts."""
        found: list[Campaign] = self._ask("GET", "/v1/campaigns")
        return found

    def campaign(self, campaign_id: str) -> Campaign:
        """Return a campaign."""
        found: Campaign = self._ask("GET", f"/v1/campaigns/{campaign_id}")
        return found

    def move_campaign(self, campaign_id: str, action: Action, *, comment: str = "") -> Campaign:
        """Bring a campaign on: submit, approve, reject, start, pause, resume, finish, cancel."""
        path = f"/v1/campaigns/{campaign_id}/{action}"
        found: Campaign = self._ask("POST", path, json={"comment": comment})
        return found

    def add_posts(self, campaign_id: str, *posts: NewPost) -> list[Post]:
        """Queue offers: all of them or none. Raises Refused, which names all that is wrong."""
        made: list[Post] = self._make(f"/v1/campaigns/{campaign_id}/posts", list(posts))
        return made

    def try_posts(self, campaign_id: str, *posts: NewPost) -> list[dict[str, Any]]:
        """Return which offers these would be, with warnings; nothing is queued."""
        path = f"/v1/campaigns/{campaign_id}/posts/dry-run"
        found: list[dict[str, Any]] = self._ask("POST", path, json=list(posts))
        return found

    def posts(
        self, *, state: State | None = None, matchers: str | None = None, **wanted: Any
    ) -> Iterator[Post]:
        """Yield offers in the order they were queued, page by page."""
        params = {"state": state, "matchers": matchers, **wanted}
        asked = {name: value for name, value in params.items() if value is not None}
        cursor: str | None = "0"
        while cursor is not None:
            page: Page = self._ask("GET", "/v1/posts", params=asked | {"cursor": cursor})
            for post in page["posts"]:
                yield post
            cursor = page.get("next")

    def post(self, post_id: str) -> Post:
        """Return an offer."""
        found: Post = self._ask("GET", f"/v1/posts/{post_id}")
        return found

    def why(self, post_id: str) -> Why:
        """Return why an offer did or did not go out."""
        found: Why = self._ask("GET", f"/v1/posts/{post_id}/why")
        return found

    def change_post(self, post_id: str, *, version: int | None = None, **values: Any) -> Post:
        """Change an offer that was not handed over; of this version, where one is given."""
        headers = {} if version is None else {"if-match": f'"{version}"'}
        path = f"/v1/posts/{post_id}"
        found: Post = self._ask("PATCH", path, json=values, headers=headers)
        return found

    def cancel_post(self, post_id: str) -> Post:
        """Cancel an offer; what is in hand is asked back, and its state says what came of it."""
        found: Post = self._ask("POST", f"/v1/posts/{post_id}/cancel")
        return found

    def retract_post(self, post_id: str, *, comment: str = "") -> Post:
        """Ask for an offer that went out to be deleted."""
        path = f"/v1/posts/{post_id}/retract"
        found: Post = self._ask("POST", path, json={"comment": comment})
        return found

    def suggest(self, label: str, like: str = "") -> list[Suggestion]:
        """Return values of a label that are like a text."""
        path = f"/v1/labels/{label}"
        found: list[Suggestion] = self._ask("GET", path, params={"like": like})
        return found

    def events(self, *types: str, after: str | None = None) -> Iterator[Event]:
        """Yield what happens as it happens, for ever; a stream that breaks is taken up again."""
        failures = 0
        while True:
            headers = self._headers | ({} if after is None else {"last-event-id": after})
            url, params = f"{self._url}/v1/events/stream", {"type": list(types)}
            try:
                with self._client.stream(
                    "GET", url, headers=headers, params=params, timeout=60
                ) as answer:
                    if not answer.is_success:
                        answer.read()
                        raise _refusal(answer)
                    failures = 0
                    for line in answer.iter_lines():
                        if line.startswith("data: "):
                            event: Event = json.loads(line.removeprefix("data: "))
                            after = event["id"]
                            yield event
            except httpx.TransportError:
                failures += 1
            time.sleep(min(60.0, FIRST_WAIT_S * 2**failures))

    def _make(self, path: str, body: Any) -> Any:
        headers = {"idempotency-key": uuid.uuid4().hex}
        return self._ask("POST", path, json=body, headers=headers)

    def _ask(self, method: str, path: str, **values: Any) -> Any:
        headers = self._headers | values.pop("headers", {})
        may_again = method == "GET" or "idempotency-key" in headers
        for failures in range(TRIES):
            is_last = failures == TRIES - 1 or not may_again
            wait_s = FIRST_WAIT_S * 2**failures
            try:
                answer = self._client.request(method, self._url + path, headers=headers, **values)
            except httpx.TransportError:
                if is_last:
                    raise
            else:
                if answer.is_success:
                    return answer.json() if answer.content else None
                if is_last or answer.status_code not in AGAIN:
                    raise _refusal(answer)
                wait_s = float(answer.headers.get("retry-after", wait_s))
            time.sleep(wait_s)
        raise AssertionError("the last try returns or raises")


def _refusal(answer: httpx.Response) -> Refused:
    try:
        told = answer.json()
        return Refused(answer.status_code, told["detail"], told.get("errors", []))
    except (ValueError, KeyError, TypeError):
        return Refused(answer.status_code, f"HTTP {answer.status_code}", [])
