"""What the scheduler takes and answers, as its OpenAPI document has it; a test compares them."""

from typing import Any, Literal, NotRequired, TypedDict

State = Literal[
    "unapproved", "queued", "claimed", "handed", "held", "review", "published", "expired", "failed",
    "uncertain", "retracted", "retraction_failed", "cancelled",
]  # fmt: skip
CampaignState = Literal["draft", "in_review", "approved", "running", "paused", "done", "cancelled"]
Action = Literal["submit", "approve", "reject", "start", "pause", "resume", "finish", "cancel"]


class Wrong(TypedDict):
    """One thing that is wrong with a request, and where (RFC 6901)."""

    pointer: str
    detail: str


class Refused(Exception):
    """The scheduler refused a request; `wrong` names each field."""

    def __init__(self, status: int, detail: str, wrong: list[Wrong]) -> None:
        super().__init__(detail)
        self.status, self.detail, self.wrong = status, detail, wrong


class NewPost(TypedDict, total=False):
    """An offer to queue, on one account or several, at one time or at each of a rule."""

    account: str
    accounts: list[str]
    text: str
    thread: list[str]
    variants: dict[str, str]
    threads: dict[str, list[str]]
    due_at: str
    slot: Literal["next"]
    recurring: str
    latest_at: str
    language: str
    labels: dict[str, str]
    media: list[dict[str, Any]]
    card: dict[str, Any]
    external_id: str


class Post(TypedDict):
    """An offer as it stands; times are ISO 8601."""

    post_id: str
    campaign_id: str
    account: str
    text: str
    thread: NotRequired[list[str]]
    language: str | None
    labels: dict[str, str]
    due_at: str
    latest_at: str
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
    media: list[dict[str, Any]]
    card: dict[str, Any] | None
    cancel_at: str | None
    warnings: NotRequired[list[str]]


class Page(TypedDict):
    """Some offers; `next` is the cursor of the next page."""

    posts: list[Post]
    next: NotRequired[str | None]


class Campaign(TypedDict):
    """A campaign as it stands."""

    campaign_id: str
    name: str
    state: CampaignState
    version: int
    labels: dict[str, str]
    accounts: list[str]
    time_zone: str
    begins_at: str | None
    ends_at: str | None
    hours: dict[str, str] | None
    per_hour: float | None
    priority: int
    recovery: dict[str, Any]
    quiet_s: int
    useful_s: int
    budget: int | None
    needs_approval: bool
    utm: NotRequired[dict[str, str | None] | None]
    author: str
    approver: str | None
    created_at: str
    changed_at: str
    counts: NotRequired[dict[str, int]]


class Step(TypedDict):
    """One thing that happened to an offer."""

    at: str | None
    what: str
    by: NotRequired[str]
    hold_id: NotRequired[str | None]
    incident_id: NotRequired[str | None]
    fence: NotRequired[int | None]


class Why(TypedDict):
    """Why an offer did or did not go out."""

    post_id: str
    state: str
    answer: str
    steps: list[Step]


class Event(TypedDict):
    """Something that happened; `id` is where to go on from."""

    id: str
    at: str
    type: str
    data: dict[str, Any]


class Suggestion(TypedDict):
    """A value of a label."""

    value: str
    means: str
