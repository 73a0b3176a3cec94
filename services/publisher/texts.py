"""Texts as networks count them, and what becomes of one that is too long: parts, never a cut.

An offer that is too long is refused by name; an update goes out as a thread, see channels/threads.py.
"""

from __future__ import annotations

from typing import Final

import regex

from schemas.channels import TextLimit, fits
from schemas.posts import MOST_PARTS

_SENTENCES: Final = regex.compile(r"(?<=[.!?…。！？])\s+|\n+")
_UNPRINTABLE: Final = regex.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
LINE_CHARS: Final = 120


def printable(text: str) -> str:
    """Return a text as XML can carry it (XML 1.0, 2.2): a space for what it cannot, such as a pasted line tab."""
    return _UNPRINTABLE.sub(" ", text)


def first_line(text: str) -> str:
    """Return the first line of a text as a headline, or so many of its words as one holds."""
    line = next(iter(text.strip().splitlines()), "").strip()
    if len(line) <= LINE_CHARS:
        return line
    return line[:LINE_CHARS].rsplit(" ", 1)[0] + " …"


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
    if len(found) > MOST_PARTS:
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
