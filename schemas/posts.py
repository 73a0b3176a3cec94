"""Campaigns and posts: what marketing queues, what falls due, and what became of it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints

from schemas.base import (
    Id,
    Instant,
    Language,
    Record,
    Severity,
    Text,
    Title,
    Value,
    WithoutNul,
)
from schemas.labels import Labels
from schemas.policies import Moment

Kind = Literal["offer", "update"]
Account = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Result = Literal[
    "published", "held", "expired", "failed", "uncertain", "retracted", "retraction_failed"
]


MediaType = Literal["image/jpeg", "image/png", "image/gif", "image/webp", "video/mp4"]
Link = Annotated[str, StringConstraints(max_length=2_000, pattern=r"^https?://[^\s\x00]+$")]
MOST_MEDIA = 4
MOST_PARTS = 20


def is_address(link: str) -> bool:
    """Say whether a link has a host and a port as there can be."""
    try:
        found = urlsplit(link)
        host = (found.hostname or "").encode("idna")
        return bool(host) and found.port != 0
    except ValueError:
        return False


class Media(Value):
    """A picture or a video of a post: where it is fetched, and the words for those who do not see it."""

    url: Link
    type: MediaType
    alt: Annotated[str, StringConstraints(min_length=1, max_length=1_000), WithoutNul]

    @property
    def is_video(self) -> bool:
        return self.type.startswith("video/")


class Card(Value):
    """How a link is shown where the network does not look for itself."""

    url: Link
    title: Title
    description: Annotated[str, StringConstraints(max_length=1_000), WithoutNul] = ""


class Post(Value):
    """One text for one channel account. `kind` alone decides whether a hold can stop it.

    `thread` are the parts that follow an offer's first, each as a reply to the one before; a first
    comment is one of them. `moment` and `severity` are an update's, for channels that show states.
    """

    post_id: Id
    kind: Kind
    account: Account
    text: Text
    thread: tuple[Text, ...] = Field(default=(), max_length=MOST_PARTS - 1)
    labels: Labels = {}
    language: Language | None = None
    due_at: Instant
    latest_at: Instant
    campaign_id: Id | None = None
    incident_id: Id | None = None
    media: tuple[Media, ...] = Field(default=(), max_length=MOST_MEDIA)
    card: Card | None = None
    moment: Moment | Literal["written"] | None = None
    severity: Severity | None = None


class DuePost(Record):
    """An offer whose time has come. `attempt` counts how often the scheduler handed it over."""

    TYPE: ClassVar[str] = "interlock.due-post.v1"
    post: Post
    attempt: int = Field(ge=1)


class RetractPost(Record):
    """A person asks to take an offer back that went out. It follows the offer, on the same account."""

    TYPE: ClassVar[str] = "interlock.retract-post.v1"
    post_id: Id
    account: Account
    author: str
    reason: str = ""


class Outcome(Record):
    """What became of a post. `uncertain` means nobody knows, and is never guessed away."""

    TYPE: ClassVar[str] = "interlock.outcome.v1"
    post_id: Id
    kind: Kind
    account: Account
    attempt: int = 1
    result: Result
    at: Instant
    reason: str = ""
    hold_id: Id | None = None
    fence: int | None = Field(default=None, description="the fence that the send relied on")
    incident_id: Id | None = None
    publication: str | None = None
    url: str | None = None
