"""What a channel account takes: texts as its network counts them, pictures, videos, and which accounts there are.

The publisher, which knows the accounts, says so on `channels.accounts`; the scheduler checks an offer
against it while it is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import regex

from schemas.base import Record
from schemas.posts import Account, Media

Unit = Literal["graphemes", "utf16", "weighted"]
LINK: Final = regex.compile(r"https?://[^\s<>\"]+[^\s<>\".,;:!?)\]}'’]")
_MENTION: Final = regex.compile(r"(?<![\w/])(@\w+)@[\w.-]+\w")
_MOST_OF: Final[dict[Unit, int]] = {"graphemes": 1, "utf16": 2, "weighted": 2}  # One code point.
_LIGHT: Final = ((0, 4351), (8192, 8205), (8208, 8223), (8242, 8247))  # twitter-text 3, config v3.


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLimit:
    """How much one post may say.

    `graphemes` are what people see as one character; `utf16` counts code units; `weighted` counts
    as X does: 1 or 2 each, an emoji 2. `link` is what any link counts; 0: each of its characters.
    """

    most: int
    unit: Unit
    link: int = 0
    bytes: int = 0
    short_mentions: bool = False  # Mastodon: of `@who@where` only `@who` counts.


def length(text: str, limit: TextLimit) -> int:
    """Return how long a text is for the network."""
    if limit.short_mentions:
        text = _MENTION.sub(r"\1", text)
    links = 0
    if limit.link:
        text, links = LINK.subn("", text)
    return _count(text, limit.unit) + links * limit.link


def _count(text: str, unit: Unit) -> int:
    match unit:
        case "graphemes":
            return len(regex.findall(r"\X", text))
        case "utf16":
            return len(text.encode("utf-16-le")) // 2
        case "weighted":
            return sum(_weight(cluster) for cluster in regex.findall(r"\X", text))


def _weight(cluster: str) -> int:
    if len(cluster) > 1 and regex.search(r"\p{Extended_Pictographic}", cluster):
        return 2
    return sum(
        1 if any(low <= ord(char) <= high for low, high in _LIGHT) else 2 for char in cluster
    )


def fits(text: str, limit: TextLimit) -> bool:
    """Say whether a text is short enough."""
    if limit.bytes and len(text.encode()) > limit.bytes:
        return False
    if not (limit.link and "://" in text) and len(text) * _MOST_OF[limit.unit] <= limit.most:
        return True  # Most are; to count is a hundred times slower.
    return length(text, limit) <= limit.most


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaLimit:
    """Which pictures a post may have, and how many characters describe one (0: they are not shown).

    In their place it may have one video, of `video_bytes` at most; None: it may not. Where the network fetches
    them itself, `bytes` and `video_bytes` may be 0: it knows.
    """

    most: int
    bytes: int
    alt: int
    types: frozenset[str] = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
    video_bytes: int | None = None

    def refusal(self, media: Sequence[Media]) -> str:
        """Say what of these is not taken; empty: all are."""
        videos = [number for number, one in enumerate(media) if one.is_video]
        if videos and self.video_bytes is None:
            return f"media/{videos[0]}/type: videos are not taken"
        if videos and len(media) > 1:
            return "media: a video stands alone, without pictures or another one"
        if len(media) > self.most:
            return f"media: {len(media)} pictures, and at most {self.most} are taken"
        for number, one in enumerate(media):
            if one.type not in self.types and not one.is_video:
                return f"media/{number}/type: {one.type} is not taken"
            if self.alt and len(one.alt) > self.alt:
                return f"media/{number}/alt: {len(one.alt)} of at most {self.alt} characters"
        return ""


class ChannelAccount(Record):
    """An account that posts can name, and what it takes; without a limit it takes any text, or no picture and no video."""

    TYPE: ClassVar[str] = "interlock.channel-account.v1"
    account: Account
    channel: str
    text: TextLimit | None = None
    media: MediaLimit | None = None
    takes_offers: bool = True
    takes_threads: bool = False


def objections(
    account: ChannelAccount, texts: Sequence[str], media: Sequence[Media]
) -> dict[str, str]:
    """Return what an account will not take of an offer, by the field; `texts` are its parts."""
    found: dict[str, str] = {}
    if not account.takes_offers:
        found["account"] = f"{account.account} ({account.channel}) takes status updates only"
    for number, text in enumerate(texts):
        if account.text is not None and not fits(text, account.text):
            count = length(text, account.text)
            where = f"thread/{number - 1}" if number else "text"
            found[where] = (
                f"{account.account} takes {account.text.most} {account.text.unit}, this has {count}"
            )
    if len(texts) > 1 and not account.takes_threads:
        found["thread"] = f"{account.account} ({account.channel}) takes posts of one part only"
    if media and account.media is None:
        found["media"] = f"{account.account} ({account.channel}) takes no pictures and no videos"
    if media and account.media is not None and (why := account.media.refusal(media)):
        found["media"] = f"{account.account}: {why}"
    return found
