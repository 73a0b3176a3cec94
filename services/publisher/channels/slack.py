"""Slack: a bot in a channel, by the Web API.

- `chat.postMessage` (docs.slack.dev/reference/methods/chat.postMessage) answers 200 with `ok` and
  `error`; there is no key for a second try. `client_msg_id` is not honoured for bots.
- `conversations.history` (…/conversations.history) finds the words of a lost answer among the newest
  hundred behind `oldest`; `chat.delete` takes a message of the bot back.
- Limits: HTTP 429 with `Retry-After`, about one message a second and channel (…/rate-limits). A
  message should have 4,000 characters; above 40,000 Slack cuts it.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Final

from schemas.channels import MediaLimit, TextLimit
from schemas.posts import Post
from services.kit.telemetry import Clock
from services.publisher.accounts import SlackAccount
from services.publisher.channels import (
    NotSent,
    Publication,
    Refused,
    Retracted,
    Unknown,
)
from services.publisher.channels.http import SKEW, ask, new_client
from services.publisher.channels.threads import Part, Threads
from services.publisher.clearance import Clearance
from services.publisher.ledger import Capabilities

NEWEST: Final = 100
_LIMIT: Final = TextLimit(most=4_000, unit="utf16")
_MEDIA: Final = MediaLimit(most=4, bytes=0, alt=1_000)  # Slack fetches them.
SECTION_CHARS: Final = 3_000  # docs.slack.dev/reference/block-kit/blocks/section-block
_LINKED: Final = re.compile(r"<(https?://[^|>]+)(?:\|[^>]*)?>")  # How history shows a link.
_GONE: Final = "message_not_found"
# docs.slack.dev/reference/methods/chat.postMessage#errors
_OF_A_PERSON: Final = frozenset(
    {"not_authed", "invalid_auth", "account_inactive", "token_revoked", "token_expired"}
)
_LATER: Final = frozenset(
    {"ratelimited", "rate_limited", "service_unavailable", "team_added_to_org"}
)
_UNKNOWN: Final = frozenset({"internal_error", "fatal_error"})


class Slack(Threads):
    """One channel of one workspace."""

    capabilities = Capabilities(
        idempotent_s=0,
        can_delete=True,
        reads_back="search",
        text=_LIMIT,
        media=_MEDIA,
        threads=True,
        has_rate=True,
    )

    def __init__(self, account: SlackAccount, clock: Clock) -> None:
        self.account, self.clock = account, clock
        self.client = new_client(base_url=account.url, keeps=False)

    async def _send(self, clearance: Clearance, part: Part) -> Publication:
        body: dict[str, Any] = {"text": _escaped(part.text), "unfurl_links": True}
        if part.above:
            body["thread_ts"] = part.above[0]
        elif clearance.post.media:
            body["blocks"] = _blocks(part.text, clearance.post)
        made = await self._call("chat.postMessage", body, clearance=clearance)
        return Publication(str(made["ts"]))

    async def look_up(self, post: Post, *, key: str, age_s: float) -> Publication | None:
        oldest = self.clock.now() - timedelta(seconds=age_s) - SKEW
        behind = {"limit": NEWEST, "oldest": f"{oldest.timestamp():.6f}"}
        found = await self._call("conversations.history", behind)
        mine = {
            _LINKED.sub(r"\1", m.get("text", "")): str(m["ts"])
            for m in found["messages"]
            if m.get("bot_id")
        }
        texts = [_escaped(text) for text in self.texts(post)]
        if texts[0] not in mine or len(texts) > 1:  # A thread's parts are not in the channel.
            return None
        return Publication(mine[texts[0]])

    async def retract(self, publication: Publication) -> Retracted:
        for stamp in reversed(publication.id.split()):
            await self._call("chat.delete", {"ts": stamp}, allowed=_GONE)
        return Retracted()

    async def aclose(self) -> None:
        await self.client.aclose()

    async def _call(
        self,
        method: str,
        body: dict[str, Any],
        *,
        allowed: str = "",
        clearance: Clearance | None = None,
    ) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self.account.token.get_secret_value()}"}
        answer, _ = await ask(
            self.client,
            "POST",
            f"/api/{method}",
            now=self.clock.now(),
            clearance=clearance,
            headers=headers,
            json=body | {"channel": self.account.channel_id},
        )
        found: dict[str, Any] = answer.json()
        error = str(found.get("error", ""))
        if found.get("ok") or error == allowed:
            return found
        if error in _OF_A_PERSON or error in _LATER:
            raise NotSent(f"Slack: {error}")
        if error in _UNKNOWN:
            raise Unknown(f"Slack: {error}")
        raise Refused(f"Slack: {error}")


def _escaped(text: str) -> str:
    """Escape what Slack reads as markup, so that nobody's words become a mention of everybody.

    docs.slack.dev, "Formatting message text", Escaping.
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _blocks(text: str, post: Post) -> list[dict[str, Any]]:
    """Return the words and the pictures behind them; `text` beside them is what is notified."""
    words = _escaped(text)
    sections = [
        {"type": "section", "text": {"type": "mrkdwn", "text": words[at : at + SECTION_CHARS]}}
        for at in range(0, len(words), SECTION_CHARS)
    ]
    images = [{"type": "image", "image_url": m.url, "alt_text": m.alt} for m in post.media]
    return [*sections, *images]
