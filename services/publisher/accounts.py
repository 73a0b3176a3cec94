"""Channel accounts as their file names them, and which of them a status update goes to."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from schemas.base import Language
from schemas.incidents import StatusUpdate
from schemas.labels import Matchers, covers
from schemas.policies import Audience, Family
from schemas.posts import Account, Post

UPDATE_USEFUL_S = 24 * 3600


class AccountBase(BaseModel):
    """What every account has. `updates` says which incidents it speaks of; none: offers only.

    `family` (how much room there is) and `audience` choose among an update's words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    updates: Matchers | None = None
    languages: tuple[Language, ...] = ()
    family: Family = "long"
    audience: Audience | None = None


class FeedAccount(AccountBase):
    channel: Literal["feed"]
    title: str = "Service status"


class WebhookAccount(AccountBase):
    channel: Literal["webhook"]
    url: str = Field(pattern=r"^https?://")
    secret: SecretStr = Field(min_length=16)
    deduplicates: bool = Field(default=True, description="the receiver knows an id it has seen")


class MastodonAccount(AccountBase):
    channel: Literal["mastodon"]
    url: str = Field(pattern=r"^https?://")
    token: SecretStr
    family: Family = "short"
    visibility: Literal["public", "unlisted"] = "public"


AnyAccount = Annotated[
    FeedAccount | WebhookAccount | MastodonAccount, Field(discriminator="channel")
]


class Accounts(BaseModel):
    """The file of channel accounts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    accounts: dict[Account, AnyAccount]


def posts_of(update: StatusUpdate, accounts: Mapping[str, AnyAccount]) -> list[Post]:
    """Return the posts that an update makes: one per account and language, ids derived from it."""
    found = []
    for name, account in accounts.items():
        if account.updates is None or not covers(account.updates, update.labels):
            continue
        for language, text in update.texts.items():
            if account.languages and language not in account.languages:
                continue
            found.append(
                Post(
                    post_id=f"{update.update_id}.{name}.{language}",
                    kind="update",
                    account=name,
                    text=_words(update, account, language) or text,
                    labels=update.labels,
                    language=language,
                    due_at=update.written_at,
                    latest_at=update.written_at + timedelta(seconds=UPDATE_USEFUL_S),
                    incident_id=update.incident_id,
                )
            )
    return found


def _words(update: StatusUpdate, account: AccountBase, language: str) -> str:
    """Return the words meant for this account; the closest description of its readers wins."""
    fitting = [
        variant
        for variant in update.variants
        if variant.language == language
        and variant.family in (None, account.family)
        and variant.audience in (None, account.audience)
    ]
    best = max(fitting, key=lambda v: (v.audience is not None, v.family is not None), default=None)
    return best.text if best else ""
