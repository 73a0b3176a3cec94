"""Telegram: a bot that may post in a channel or a group (core.telegram.org/bots/api).

- `sendMessage` knows no key and nothing can be read back: a lost answer stays unknown.
- `deleteMessage` works within 48 hours of a message, and says so behind them.
- `sendPhoto` and `sendVideo` by an address, from which Telegram fetches ("Sending files": a video of 20 MB).
- 429 with `parameters.retry_after` (core.telegram.org/bots/faq, limits: one message a second in a chat);
  4,096 UTF-16 code units behind entities.
- The token is a part of the address: no error of the connection may carry it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

import httpx

from schemas.channels import MediaLimit, TextLimit
from schemas.posts import Post
from services.kit.telemetry import Clock
from services.publisher.accounts import TelegramAccount
from services.publisher.channels import Publication, Refused, Retracted
from services.publisher.channels.http import TOO_MANY, ask, new_client
from services.publisher.channels.threads import Part, Threads, texts_of
from services.publisher.clearance import Clearance
from services.publisher.ledger import Capabilities
from services.publisher.rates import Told

_LIMIT: Final = TextLimit(most=4_096, unit="utf16")
_CAPTION: Final = TextLimit(most=1_024, unit="utf16")
# Telegram fetches it, and describes none.
_MEDIA: Final = MediaLimit(most=1, bytes=0, alt=0, video_bytes=20_000_000)


class Telegram(Threads):
    """One chat."""

    capabilities = Capabilities(
        idempotent_s=0,
        can_delete=True,
        text=_LIMIT,
        media=_MEDIA,
        threads=True,
        has_rate=True,
    )

    def __init__(self, account: TelegramAccount, clock: Clock) -> None:
        self.account, self.clock = account, clock
        self.client = new_client(base_url=account.url, keeps=False)

    def texts(self, post: Post) -> list[str]:
        return texts_of(post, _LIMIT, first=_CAPTION if post.media else None)

    async def _send(self, clearance: Clearance, part: Part) -> Publication:
        method = "sendMessage"
        body: dict[str, Any] = {"chat_id": self.account.chat_id, "text": part.text}
        if clearance.post.media and part.number == 0:
            (one,) = clearance.post.media
            kind = "video" if one.is_video else "photo"
            method = f"send{kind.capitalize()}"
            body = {"chat_id": self.account.chat_id, kind: one.url, "caption": part.text}
        if part.above:
            body["reply_parameters"] = {"message_id": int(part.above[-1])}
        made = await self._call(method, body, clearance=clearance)
        return Publication(str(made["result"]["message_id"]))

    async def retract(self, publication: Publication) -> Retracted:
        for message_id in reversed(publication.id.split()):
            body = {"chat_id": self.account.chat_id, "message_id": int(message_id)}
            try:
                await self._call("deleteMessage", body)
            except Refused as error:
                if "message to delete not found" not in str(error):
                    raise
        return Retracted()

    async def aclose(self) -> None:
        await self.client.aclose()

    async def _call(
        self, method: str, body: dict[str, Any], *, clearance: Clearance | None = None
    ) -> dict[str, Any]:
        path = f"/bot{self.account.token.get_secret_value()}/{method}"
        answer, _ = await ask(
            self.client, "POST", path, now=self.clock.now(), hear=_hear, clearance=clearance,
            json=body,
        )  # fmt: skip
        found: dict[str, Any] = answer.json()
        return found


def _hear(answer: httpx.Response, now: datetime) -> Told | None:
    if answer.status_code not in TOO_MANY:
        return None
    try:
        after_s = float(answer.json()["parameters"]["retry_after"])
    except (ValueError, KeyError, TypeError):
        return None
    return Told(limit=0, remaining=0, reset_at=now + timedelta(seconds=after_s), refused=True)
