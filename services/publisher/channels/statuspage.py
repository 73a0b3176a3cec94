"""Statuspage, by its API v1 (developer.statuspage.io): a page that somebody has there already.

- `POST /v1/pages/{page}/incidents` begins an incident, `PATCH …/incidents/{id}` adds an update. Which
  of its incidents is ours its `metadata` says ("all top-level values must be objects"), so that nothing
  is kept here: before each update the newest hundred are read.
- There is no key for a second try: what got lost is looked for by its words, in the incident's updates.
- An update cannot be deleted alone. Offers are refused: a status page carries none.
- One request a second for each key, over a minute; above it the answer is 420 or 429 ("Rate limiting").
"""

from __future__ import annotations

from typing import Any, Final

import httpx

from schemas.channels import TextLimit
from schemas.labels import covers
from schemas.posts import Post
from services.kit.telemetry import Clock
from services.publisher.accounts import StatuspageAccount
from services.publisher.channels import Publication, Refused, Retracted
from services.publisher.channels.http import ask, is_within, new_client
from services.publisher.clearance import Clearance
from services.publisher.ledger import Capabilities
from services.publisher.page import COMPONENT_OF, IMPACT_OF
from services.publisher.texts import first_line

NEWEST: Final = 100
_LIMIT: Final = TextLimit(most=25_000, unit="utf16")
_STATUS: Final = {
    "opened": "investigating", "working": "identified",
    "monitoring": "monitoring", "resolved": "resolved",
}  # fmt: skip


class Statuspage:
    """One page."""

    capabilities = Capabilities(
        idempotent_s=0, can_delete=False, reads_back="search", text=_LIMIT, has_rate=True
    )

    def __init__(self, account: StatuspageAccount, clock: Clock) -> None:
        self.account, self.clock = account, clock
        self.client = new_client(base_url=account.url)
        self.path = f"/v1/pages/{account.page_id}/incidents"

    async def publish(self, clearance: Clearance, *, key: str) -> Publication:
        post = clearance.post
        if post.kind == "offer":
            raise Refused("a status page carries no offers")
        known = _ours(await self._newest(), post)
        body = {"incident": self._incident(post, is_new=known is None)}
        if known is None:
            answer = await self._ask("POST", self.path, json=body, clearance=clearance)
        else:
            where = f"{self.path}/{known['id']}"
            answer = await self._ask("PATCH", where, json=body, clearance=clearance)
        return _publication(answer.json())

    async def look_up(self, post: Post, *, key: str, age_s: float) -> Publication | None:
        answer = await self._newest()
        known = _ours(answer, post)
        if known is None:
            return None
        said = {
            update["body"]
            for update in known.get("incident_updates", ())
            if is_within(answer, update["created_at"], age_s=age_s, now=self.clock.now())
        }
        return _publication(known) if post.text in said else None

    async def retract(self, publication: Publication) -> Retracted:
        raise Refused("an update cannot be deleted by itself")

    async def aclose(self) -> None:
        await self.client.aclose()

    def _incident(self, post: Post, *, is_new: bool) -> dict[str, Any]:
        severity = post.severity or "major"
        found: dict[str, Any] = {"body": post.text}
        if post.moment in _STATUS:
            found["status"] = _STATUS[post.moment]
        if is_new:
            found["name"] = first_line(post.text)
            found["metadata"] = {"interlock": {"incident": post.incident_id or post.post_id}}
            found.setdefault("status", "investigating")
        if post.moment != "written":
            found["impact_override"] = IMPACT_OF[severity]
            state = "operational" if post.moment == "resolved" else COMPONENT_OF[severity]
            touched = [
                name
                for name, matchers in self.account.components.items()
                if covers(matchers, post.labels)
            ]
            if touched:
                found |= {"component_ids": touched, "components": dict.fromkeys(touched, state)}
        return found

    async def _newest(self) -> httpx.Response:
        return await self._ask("GET", self.path, params={"limit": NEWEST})

    async def _ask(self, method: str, path: str, **values: Any) -> httpx.Response:
        headers = {"authorization": f"OAuth {self.account.key.get_secret_value()}"}
        answer, _ = await ask(
            self.client, method, path, now=self.clock.now(), headers=headers, **values
        )
        return answer


def _ours(answer: httpx.Response, post: Post) -> dict[str, Any] | None:
    wanted = post.incident_id or post.post_id
    for incident in answer.json():
        ours = (incident.get("metadata") or {}).get("interlock") or {}
        if ours.get("incident") == wanted:
            return dict(incident)
    return None


def _publication(incident: dict[str, Any]) -> Publication:
    return Publication(str(incident["id"]), incident.get("shortlink"))
