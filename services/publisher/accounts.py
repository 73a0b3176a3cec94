"""Channel accounts as their file names them, and which of them a status update goes to."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from schemas.base import Language, Text
from schemas.channels import ChannelAccount
from schemas.incidents import StatusUpdate
from schemas.labels import Matchers, covers
from schemas.policies import Audience, Family
from schemas.posts import Account, Post
from services.publisher.ledger import Capabilities

UPDATE_USEFUL_S = 24 * 3600
VAPID_CHARS = 43


class AccountBase(BaseModel):
    """What every account has. `updates` says which incidents it speaks of; none: offers only.

    `family` (how much room there is) and `audience` choose among an update's words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    updates: Matchers | None = None
    languages: tuple[Language, ...] = ()
    family: Family = "long"
    audience: Audience | None = None
    picture_hosts: frozenset[str] = Field(
        default=frozenset(),
        description="hosts of pictures and videos that may be at private addresses",
    )
    apology: Text | None = Field(default=None, description="said where an offer was taken back")


class FeedAccount(AccountBase):
    channel: Literal["feed"]
    title: str = "Service status"


class WebhookAccount(AccountBase):
    channel: Literal["webhook"]
    url: str = Field(pattern=r"^https?://")
    secret: SecretStr = Field(min_length=16)
    old_secret: SecretStr | None = Field(default=None, min_length=16)
    deduplicates: bool = Field(default=True, description="the receiver knows an id it has seen")


class MastodonAccount(AccountBase):
    channel: Literal["mastodon"]
    url: str = Field(pattern=r"^https?://")
    token: SecretStr = Field(
        description="with write:statuses and write:media; where a server keeps no keys, read:accounts and read:statuses"
    )
    family: Family = "short"
    visibility: Literal["public", "unlisted"] = "public"
    characters: int = Field(default=500, ge=100, description="as the server says: /api/v2/instance")


class BlueskyAccount(AccountBase):
    channel: Literal["bluesky"]
    url: str = Field(default="https://bsky.social", pattern=r"^https?://")
    handle: str
    password: SecretStr = Field(description="an app password")
    family: Family = "short"


class DiscordAccount(AccountBase):
    """A bot in a channel, or a webhook; a webhook knows no second try."""

    channel: Literal["discord"]
    url: str = Field(default="https://discord.com", pattern=r"^https?://")
    token: SecretStr | None = None
    channel_id: str | None = Field(default=None, pattern=r"^\d+$")
    webhook: SecretStr | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        bot = (self.token, self.channel_id)
        is_bot = self.webhook is None and None not in bot
        is_hook = self.webhook is not None and bot == (None, None)
        if not is_bot and not is_hook:
            raise ValueError("webhook: either it, or token and channel_id")
        return self


class SlackAccount(AccountBase):
    channel: Literal["slack"]
    url: str = Field(default="https://slack.com", pattern=r"^https?://")
    token: SecretStr = Field(description="a bot token with chat:write and channels:history")
    channel_id: str


class TelegramAccount(AccountBase):
    channel: Literal["telegram"]
    url: str = Field(default="https://api.telegram.org", pattern=r"^https?://")
    token: SecretStr
    chat_id: str | int


class TeamsAccount(AccountBase):
    channel: Literal["teams"]
    webhook: SecretStr = Field(description="the workflow's address")


class AppriseAccount(AccountBase):
    channel: Literal["apprise"]
    address: SecretStr = Field(description="as Apprise writes it: scheme://…")


class XAccount(AccountBase):
    channel: Literal["x"]
    url: str = Field(default="https://api.x.com", pattern=r"^https?://")
    consumer_key: str
    consumer_secret: SecretStr
    token: SecretStr
    token_secret: SecretStr
    family: Family = "short"


class StatuspageAccount(AccountBase):
    """A page at Statuspage. Of its components, those whose matchers cover an update's labels change."""

    channel: Literal["statuspage"]
    url: str = Field(default="https://api.statuspage.io", pattern=r"^https?://")
    page_id: str = Field(pattern=r"^[a-z0-9]+$")
    key: SecretStr = Field(description="an API key of a user of the page")
    components: dict[str, Matchers] = Field(default={}, description="by the page's component ids")


# Chrome and Edge's older ones, Firefox, Safari, Edge on Windows.
PUSH_SERVICES = (
    "fcm.googleapis.com", ".push.services.mozilla.com", ".push.apple.com", ".notify.windows.com",
)  # fmt: skip


class WebPushAccount(AccountBase):
    """Notifications in the browsers of those who asked for them on the public page."""

    channel: Literal["webpush"]
    private_key: SecretStr = Field(description="`interlock keys vapid` makes one; keep it")
    contact: str = Field(pattern=r"^(mailto:[^\s@]+@[^\s@]+|https://\S+)$")
    push_services: tuple[str, ...] = Field(
        default=PUSH_SERVICES, description="hosts that browsers may name; a dot: all below"
    )
    family: Family = "short"

    @field_validator("private_key")
    @classmethod
    def _is_a_key(cls, given: SecretStr) -> SecretStr:
        key = given.get_secret_value()
        if len(key) != VAPID_CHARS or not key.replace("-", "").replace("_", "").isalnum():
            raise ValueError(
                "32 bytes in base64url were expected: `interlock keys vapid` makes one"
            )
        return given


class Smtp(BaseModel):
    """A mail server. `starttls` and `tls` check its certificate; `none` is for a local one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    port: int = Field(default=587, ge=1, le=65_535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str | None = None
    password: SecretStr | None = None


class EmailAccount(AccountBase):
    """One message a recipient: to those named here, and to the page's confirmed subscribers."""

    channel: Literal["email"]
    smtp: Smtp
    sender: str = Field(pattern=r"^[^\s@<>]+@[^\s@<>]+$")
    sender_name: str = "Service status"
    to: tuple[Annotated[str, Field(pattern=r"^[^\s@<>]+@[^\s@<>]+$")], ...] = ()
    subscribers: bool = False


AnyAccount = Annotated[
    FeedAccount
    | WebhookAccount
    | MastodonAccount
    | BlueskyAccount
    | DiscordAccount
    | EmailAccount
    | SlackAccount
    | TelegramAccount
    | TeamsAccount
    | XAccount
    | StatuspageAccount
    | WebPushAccount
    | AppriseAccount,
    Field(discriminator="channel"),
]


class Accounts(BaseModel):
    """The file of channel accounts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    accounts: dict[Account, AnyAccount]


def known_as(name: str, account: AnyAccount, can: Capabilities) -> ChannelAccount:
    """Return what others are told of an account: no address and no secret."""
    takes_offers = not isinstance(account, StatuspageAccount | WebPushAccount)
    return ChannelAccount(
        account=name, channel=account.channel, text=can.text, media=can.media,
        takes_offers=takes_offers, takes_threads=can.threads,
    )  # fmt: skip


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
                    moment=update.moment,
                    severity=update.severity,
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
