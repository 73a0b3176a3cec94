"""HTTP for browsers that want to be told, and for their service worker.

A browser asks after its user allowed it, which is the opt-in; it leaves by its own endpoint, a secret of
its own. Only the push services that the account names are ever called.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Final

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from services.kit.rates import PerMinute
from services.kit.telemetry import Clock
from services.kit.web import Problem, field_problem, public
from services.publisher.accounts import WebPushAccount
from services.publisher.channels.webpush import encrypt, is_push_service
from services.publisher.page import PageSettings
from services.publisher.push_store import Browser, PushStore

PER_MINUTE: Final = 300  # Of all visitors together.
Base64 = Annotated[str, Field(min_length=16, max_length=200, pattern=r"^[A-Za-z0-9_-]+=*$")]


class PushKeys(BaseModel):
    """W3C Push API, `PushSubscription.toJSON().keys`."""

    model_config = ConfigDict(extra="ignore")

    p256dh: Base64
    auth: Base64


class Subscription(BaseModel):
    """W3C Push API, `PushSubscription.toJSON()`."""

    model_config = ConfigDict(extra="ignore")

    endpoint: str = Field(max_length=1_000)
    keys: PushKeys


class Asked(BaseModel):
    """A browser that wants to be told; `component` is one of the page's, or none for all."""

    subscription: Subscription
    language: str = Field(default="en", max_length=35)
    component: str = Field(default="", max_length=63)
    replaces: str = Field(default="", max_length=1_000, description="the endpoint it had before")


class Leaving(BaseModel):
    """A browser that wants to be told no more."""

    endpoint: str = Field(max_length=1_000)


def new_router(
    settings: PageSettings, browsers: PushStore, account: WebPushAccount | None, clock: Clock
) -> APIRouter:
    """Return the routes of browsers."""
    router = APIRouter(dependencies=[Depends(public)], include_in_schema=False)
    rates = PerMinute(PER_MINUTE, now_s=clock.monotonic_s)

    @router.post("/push", status_code=204)
    async def ask(asked: Asked) -> None:
        if account is None:
            raise Problem(404, "no account has the channel webpush, or there is no public URL")
        if rates.take().is_over:
            raise Problem(429, "too many ask at once: try again in a minute")
        one = _checked(asked, settings, account)
        before = await browsers.find(asked.replaces) if asked.replaces else None
        if before is not None:
            one = replace(one, language=before.language, matchers=before.matchers)
            await browsers.remove(before.endpoint)
        await browsers.add(one)

    @router.post("/push/leave", status_code=204)
    async def leave(leaving: Leaving) -> None:
        await browsers.remove(leaving.endpoint)  # Whether it was there is told to nobody.

    return router


def _checked(asked: Asked, settings: PageSettings, account: WebPushAccount) -> Browser:
    found = asked.subscription
    if not is_push_service(found.endpoint, account.push_services):
        raise field_problem("subscription/endpoint", "is at no push service that we call")
    matchers = settings.matchers_of(asked.component)
    if matchers is None:
        raise field_problem("component", "the page has none of this id")
    languages = settings.languages
    one = Browser(
        endpoint=found.endpoint,
        p256dh=found.keys.p256dh,
        auth=found.keys.auth,
        language=(asked.language if asked.language in languages else languages[0])[:2],
        matchers=matchers,
    )
    try:
        encrypt(one, b"")
    except ValueError:
        raise field_problem("subscription/keys", "are no keys of a browser") from None
    return one
