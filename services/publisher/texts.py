"""Texts as networks count them, and what becomes of one that is too long: parts, never a cut.

An offer that is too long is refused by name; an update goes out as a thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import regex

Unit = Literal["graphemes", "utf16", "weighted"]
LINK: Final = regex.compile(r"https?://[^\s<>\"]+[^\s<>\".,;:!?)\]}’']")
_MENTION: Final = regex.compile(r"(?<![\w/])(@\w+)@[\w.-]+\w")
_SENTENCES: Final = regex.compile(r"(?<=[.!?…。！？])\s+|\n+")
_LIGHT: Final = ((0, 4351), (8192, 8205), (8208, 8223), (8242, 8247))  # twitter-text 3, config v3.
MAX_PARTS: Final = 20
LINE_CHARS: Final = 120


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


def first_line(text: str) -> str:
    """Return the first line of a text as a headline, or so many of its words as one holds."""
    line = text.strip().splitlines()[0].strip()
    if len(line) <= LINE_CHARS:
        return line
    return line[:LINE_CHARS].rsplit(" ", 1)[0] + " …"


def fits(text: str, limit: TextLimit) -> bool:
    """Say whether a text is short enough."""
    is_small = not limit.bytes or len(text.encode()) <= limit.bytes
    return is_small and length(text, limit) <= limit.most


def parts(text: str, limit: TextLimit | None) -> list[str]:
    """Return a text as parts that each fit, numbered where there are several; nothing is left out.

    It is divided between sentences where it can be, else between words. Raises ValueError for a text
    that would need more than twenty parts.
    """
    if limit is None or fits(text, limit):
        return [text]
    pieces = [piece for piece in _SENTENCES.split(text) if piece]
    room = " (20/20)"
    found: list[str] = []
    for piece in pieces:
        for word in [piece] if fits(piece + room, limit) else _words(piece, room, limit):
            if found and fits(f"{found[-1]} {word}{room}", limit):
                found[-1] = f"{found[-1]} {word}"
            else:
                found.append(word)
    if len(found) > MAX_PARTS:
        raise ValueError(f"the text would need {len(found)} posts of at most {limit.most}")
    return [f"{part} ({number}/{len(found)})" for number, part in enumerate(found, 1)]


def _words(piece: str, room: str, limit: TextLimit) -> list[str]:
    """Return the words of a sentence that is too long; a word that is too long, in pieces."""
    found: list[str] = []
    for word in piece.split():
        rest = word
        while not fits(rest + room, limit):
            size = len(rest)
            while size > 1 and not fits(rest[:size] + room, limit):
                size //= 2
            found.append(rest[:size])
            rest = rest[size:]
        found.append(rest)
    return found
