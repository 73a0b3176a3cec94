"""What marketing sends and is answered: campaigns and offers, checked and spread out. Pure.

One body may mean many offers: each account it names, and each time its rule gives, has one of its own.
"""

from __future__ import annotations

from datetime import date, datetime, time
from functools import cached_property
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from schemas.base import Chosen, Id, Instant, Language, Text, Title, WithoutNul
from schemas.labels import Labels, parse_matchers
from schemas.policies import Zone
from schemas.posts import MOST_MEDIA, MOST_PARTS, Account, Card, Media
from services.scheduler import campaign_life
from services.scheduler.life import State
from services.scheduler.recovery import USEFUL_S, Plan, Review
from services.scheduler.slots import Frame, Hours

BATCH_POSTS = 1_000
Mark = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[\w.~ -]+$")]
Thread = Annotated[tuple[Text, ...], Field(max_length=MOST_PARTS - 1)]
DAY_S = 86_400


class _Body(BaseModel):
    """What a caller sends: a field that is unknown is refused by its name."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DailyHours(_Body):
    """From one time of the day, until before the other, in the campaign's zone."""

    begin: Annotated[time, Field(examples=["08:00"])]
    end: Annotated[time, Field(examples=["20:00"])]

    @model_validator(mode="after")
    def _is_a_span(self) -> Self:
        if self.begin == self.end:
            raise ValueError(
                "begin and end are the same: leave the hours out to allow all of the day"
            )
        return self


class Utm(_Body):
    """What marks the links of a campaign; without a source it is the account's name."""

    source: Mark | None = None
    medium: Mark = "social"
    campaign: Mark
    term: Mark | None = None
    content: Mark | None = None


class CampaignChange(_Body):
    """Some of a campaign."""

    name: Title = "campaign"
    labels: Labels = {}
    accounts: tuple[Account, ...] = Field(default=(), max_length=50)
    time_zone: Zone = "UTC"
    begins_at: Chosen | None = None
    ends_at: Chosen | None = None
    hours: DailyHours | None = None
    per_hour: float | None = Field(default=None, gt=0, le=3_600, description="of `slot: next`")
    priority: int = Field(default=0, ge=-10, le=10, description="what goes first where all are due")
    recovery: Plan = Review()
    quiet_s: int = Field(default=300, ge=0, le=DAY_S, description="quiet period after a hold")
    useful_s: int = Field(default=USEFUL_S, ge=1, le=30 * DAY_S, description="how long an offer is")
    budget: int | None = Field(default=None, ge=1, description="of posts")
    needs_approval: bool = Field(default=False, description="nobody's offers go out unread")
    utm: Utm | None = Field(default=None, description="marks on the links of its next offers")


class CampaignBody(CampaignChange):
    """A campaign. It runs at once unless `draft` is said."""

    name: Title
    draft: bool = False


class PostChange(_Body):
    """Some of an offer."""

    text: Text = "offer"
    thread: Thread = ()
    due_at: Chosen | None = None
    latest_at: Chosen | None = None
    language: Language | None = None
    labels: Labels = {}
    media: tuple[Media, ...] = Field(default=(), max_length=MOST_MEDIA)
    card: Card | None = None


class PostBody(_Body):
    """An offer, on one account or several, at one time or at each of a rule.

    Without an account it goes to the campaign's. `thread` are the parts below `text`, each a reply to the one
    before: a first comment too. `variants` and `threads` are an account's own, in place of `text` and `thread`.
    `slot: next` is the next time that the campaign's hours and drip leave free.
    """

    account: Account | None = None
    accounts: tuple[Account, ...] = Field(default=(), max_length=50)
    text: Text
    thread: Thread = ()
    variants: dict[Account, Text] = {}
    threads: dict[Account, Thread] = {}
    due_at: Chosen | None = None
    slot: Literal["next"] | None = None
    recurring: str | None = Field(
        default=None, max_length=500, examples=["FREQ=WEEKLY;BYDAY=MO,TH;COUNT=8"],
        description="RFC 5545 RRULE, from due_at on, in the campaign's zone",
    )  # fmt: skip
    latest_at: Chosen | None = None
    language: Language | None = None
    labels: Labels = {}
    media: tuple[Media, ...] = Field(default=(), max_length=MOST_MEDIA)
    card: Card | None = None
    external_id: Id | None = None

    @model_validator(mode="after")
    def _one_time(self) -> Self:
        if (self.due_at is None) == (self.slot is None):
            raise ValueError("due_at: either it, or slot")
        if self.recurring and self.due_at is None:
            raise ValueError("recurring: due_at says its first time")
        if self.account and self.accounts:
            raise ValueError("accounts: either it, or account")
        return self

    def on(self, campaign_accounts: tuple[str, ...]) -> tuple[str, ...]:
        """Return the accounts it goes to."""
        return (self.account,) if self.account else self.accounts or campaign_accounts


PostBodies = Annotated[
    list[PostBody],
    BeforeValidator(lambda value: value if isinstance(value, list) else [value]),
    Field(min_length=1, max_length=BATCH_POSTS),
]
"""One offer, or a list of them."""


class Comment(_Body):
    """Why."""

    comment: Annotated[str, WithoutNul] = Field(default="", max_length=1_000)


class Decision(Comment):
    """What a person decides for offers that wait; `spread_s`: that much apart, from now on."""

    decision: Literal["approve", "reject"]
    post_ids: tuple[Id, ...] = Field(min_length=1, max_length=BATCH_POSTS)
    spread_s: float = Field(default=0, ge=0, le=DAY_S)


class Campaign(BaseModel):
    """A campaign as it stands."""

    campaign_id: str
    name: str
    state: campaign_life.State
    version: int
    labels: dict[str, str]
    accounts: list[str]
    time_zone: str
    begins_at: datetime | None
    ends_at: datetime | None
    hours: DailyHours | None
    per_hour: float | None
    priority: int
    recovery: Plan
    quiet_s: int
    useful_s: int
    budget: int | None
    needs_approval: bool
    utm: Utm | None = None
    author: str
    approver: str | None
    created_at: datetime
    changed_at: datetime
    counts: dict[str, int] = {}

    @cached_property
    def frame(self) -> Frame:
        hours = Hours(begin=self.hours.begin, end=self.hours.end) if self.hours else None
        return Frame(
            zone=ZoneInfo(self.time_zone), begins_at=self.begins_at, ends_at=self.ends_at,
            hours=hours, per_hour=self.per_hour,
        )  # fmt: skip


class PostView(BaseModel):
    """An offer as it stands."""

    post_id: str
    campaign_id: str
    account: str
    text: str
    thread: list[str] = []
    language: str | None
    labels: dict[str, str]
    due_at: datetime
    latest_at: datetime
    state: State
    version: int
    attempt: int
    reason: str
    hold_id: str | None
    publication: str | None
    url: str | None
    author: str
    approver: str | None
    external_id: str | None
    media: list[Media]
    card: Card | None
    cancel_at: datetime | None
    warnings: list[str] = []


class CalendarDay(BaseModel):
    """How many offers of a campaign are due on a day, in one state."""

    campaign_id: str
    day: date
    state: State
    offers: int


PAGE_POSTS = 1_000
_FIELDS = "|".join(PostView.model_fields)


def _is_matchers(given: str) -> str:
    parse_matchers(given)
    return given


MatcherText = Annotated[str, AfterValidator(_is_matchers)]


class Wanted(_Body):
    """Which posts are listed. `matchers` must be true of an offer's labels, as Prometheus reads them."""

    campaign_id: Id | None = None
    state: State | None = None
    account: Account | None = None
    external_id: Id | None = None
    due_from: Instant | None = None
    due_before: Instant | None = None
    matchers: MatcherText | None = Field(default=None, examples=['{line="coast"}'])
    fields: str | None = Field(
        default=None, pattern=f"^({_FIELDS})(,({_FIELDS}))*$", examples=["post_id,state"]
    )
    archived: bool = Field(
        default=False, description="what was settled long ago, in place of the rest"
    )
    cursor: str = Field(default="0", pattern=r"^\d{1,18}$")
    limit: int = Field(default=100, ge=1, le=PAGE_POSTS)


class SparsePage(BaseModel):
    """Some posts, and of each only the fields that were asked for."""

    posts: list[dict[str, Any]]
    next: str | None = None


class Page(BaseModel):
    """Some posts; `next` is the cursor of the next page, absent on the last."""

    posts: list[PostView]
    next: str | None = None
