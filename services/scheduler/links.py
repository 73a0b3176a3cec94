"""Links in an offer's words, marked so that visits are counted to their campaign (UTM parameters). Pure."""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from schemas.channels import LINK
from services.scheduler.bodies import Utm


def marked(text: str, utm: Utm | None, *, account: str) -> str:
    """Return a text with the campaign's marks on each of its links; marks that are there stay."""
    if utm is None:
        return text
    marks = {"source": account} | utm.model_dump(exclude_none=True)
    return LINK.sub(lambda found: _marked(found[0], marks), text)


def _marked(link: str, marks: dict[str, str]) -> str:
    parts = urlsplit(link)
    there = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    added = {f"utm_{name}": value for name, value in marks.items() if f"utm_{name}" not in there}
    query = "&".join(filter(None, (parts.query, urlencode(added, quote_via=quote))))
    return urlunsplit(parts._replace(query=query))
