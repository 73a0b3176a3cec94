"""The policy: what a disruption holds, what is said, and when. State of the detector's fold.

A policy is a record of the log (`PolicyApplied`): what it says must be plain values, checked here.
"""

from __future__ import annotations

from datetime import time
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from schemas.base import Id, Instant, Language, Severity, Text, Value
from schemas.labels import LabelName, Labels, LabelValue, Matchers, Pattern

DAY_S = 86_400
HORIZON_S = 366 * DAY_S
Moment = Literal["opened", "working", "monitoring", "resolved"]
MOMENTS: tuple[Moment, ...] = ("opened", "working", "monitoring", "resolved")
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Family = Literal["short", "long"]
Audience = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9_-]+$")]


def _is_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{name!r} is no IANA time zone, such as Europe/London") from error
    return name


def _as_sentences(given: Any) -> Any:
    """Read one text as one sentence, and a plain sentence as the only way to say it."""
    if isinstance(given, str):
        return ((given,),)
    if isinstance(given, list | tuple):
        return tuple((one,) if isinstance(one, str) else one for one in given)
    return given


Zone = Annotated[str, AfterValidator(_is_zone)]
Sentence = Annotated[tuple[Text, ...], Field(min_length=1, max_length=10)]
_WAYS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
Sentences = Annotated[
    tuple[Sentence, ...],
    BeforeValidator(_as_sentences),
    Field(min_length=1, max_length=30),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": _WAYS}]}),
]
"""Sentences in order; of each the first way to say it whose every value is known, or none."""


class Part(Value):
    """A part of a policy: a name that is not known here is a mistake of whoever wrote it."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Window(Part):
    """A stretch of time that has a name: every week, in a zone, or once.

    `from` to `to` may pass midnight, and then belongs to the day on which it begins.
    """

    zone: Zone | None = None
    days: tuple[Weekday, ...] = WEEKDAYS
    from_: time | None = Field(default=None, alias="from")
    to: time | None = None
    start_at: Instant | None = None
    end_at: Instant | None = None

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        weekly = self.from_ is not None and self.to is not None
        once = self.start_at is not None and self.end_at is not None
        if weekly == once:
            raise ValueError("either `from` and `to`, or `start_at` and `end_at`")
        if weekly and self.from_ == self.to:
            raise ValueError("to: is the same as `from`; a whole day is 00:00 to 23:59:59")
        if self.start_at and self.end_at and self.end_at <= self.start_at:
            raise ValueError("end_at: must be after start_at")
        return self


class Count(Part):
    """So many reports of one group within so long; before that, none of them is an incident."""

    reports: int = Field(ge=2, le=1_000)
    within_s: int = Field(ge=1, le=DAY_S)


class Flapping(Part):
    """What came back so often is believed to be over only when it was calm for so long."""

    times: int = Field(ge=2, le=100)
    within_s: int = Field(ge=1, le=DAY_S)
    calm_s: int = Field(ge=1, le=DAY_S)


class Approval(Part):
    """An automatic update waits for a person, and after `within_s` does what `otherwise` says."""

    within_s: int = Field(ge=1, le=DAY_S)
    otherwise: Literal["send", "drop"] = "send"


class Rule(Part):
    """What the first rule that matches a disruption does with it.

    Chosen by `match` (labels, and the names `severity`, `source`, `planned`), `at_least` (numbers),
    `during` (windows). `for_s`: it must last so long. `hold_by` names the labels it holds by;
    `hold_also` names further sets of labels, each a hold of its own.
    """

    name: Id
    match: Matchers = ()
    at_least: dict[LabelName, float] = {}
    during: tuple[Id, ...] = ()
    for_s: int = Field(default=0, ge=0, le=DAY_S)
    count: Count | None = None
    group_by: tuple[LabelName, ...] = ()
    hold: Literal["labels", "network", "everything", "nothing"] = "labels"
    hold_by: tuple[LabelName, ...] = ("network", "line")
    hold_also: tuple[tuple[LabelName, ...], ...] = ()
    take_back_s: int = Field(default=120, ge=0, le=DAY_S)
    release: Literal["itself", "person"] = "itself"
    quiet_s: int = Field(default=300, ge=0, le=DAY_S)
    flapping: Flapping | None = None
    say: bool = True
    next_update_s: int = Field(default=1200, ge=1, le=HORIZON_S)
    update_gap_s: int = Field(default=120, ge=0, le=DAY_S)
    mute: tuple[Id, ...] = ()
    approval: Approval | None = None
    close_after_s: int = Field(default=7200, ge=1, le=HORIZON_S)

    @model_validator(mode="after")
    def _a_count_has_groups(self) -> Self:
        if self.count is not None and not self.group_by:
            raise ValueError("group_by: a rule that counts says what it counts together")
        return self


class Inhibition(Part):
    """While an incident that `by` matches is open, those that `over` matches say nothing.

    Both must agree in the labels that `equal` names. Holds are never inhibited.
    """

    by: Matchers
    over: Matchers
    equal: tuple[LabelName, ...] = ("network",)


class Stale(Part):
    """A source (a pattern, anchored) that was not read for so long opens a hold until it is."""

    source: Pattern
    after_s: int = Field(ge=1, le=DAY_S)
    hold: Matchers


class WordsFor(Part):
    """Other words for some channels, an audience, some severities, or planned works."""

    family: Family | None = None
    audience: Audience | None = None
    severity: tuple[Severity, ...] = ()
    planned: bool | None = None
    opened: Sentences | None = None
    working: Sentences | None = None
    monitoring: Sentences | None = None
    resolved: Sentences | None = None


class Words(Part):
    """What is said in one language; of `variants` the first that fits and has the moment is taken.

    `monitoring` is said, if at all, while an incident is over and was not quiet for long enough.
    """

    opened: Sentences
    working: Sentences
    monitoring: Sentences | None = None
    resolved: Sentences
    variants: tuple[WordsFor, ...] = Field(default=(), max_length=50)


class Policy(Part):
    """Rules in order (the first match decides), and the words for each language.

    `implied` says what a label tells of others: `{line: {coast: {region: west}}}`. `facts` are for
    the words: where to get one's money back, whom to call.
    """

    version: Literal[1] = 1
    name: Id
    time_zone: Zone = "UTC"
    windows: dict[Id, Window] = Field(default={}, max_length=100)
    implied: dict[LabelName, dict[LabelValue, Labels]] = {}
    rules: tuple[Rule, ...] = Field(min_length=1, max_length=200)
    inhibitions: tuple[Inhibition, ...] = Field(default=(), max_length=50)
    stale: tuple[Stale, ...] = Field(default=(), max_length=50)
    facts: dict[LabelName, Text] = Field(default={}, max_length=100)
    messages: dict[Language, Words] = {}
    unreadable_holds: Matchers = ()

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        names = [rule.name for rule in self.rules]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise ValueError(f"rules.{number}.name: another rule is called {name!r} as well")
        for number, rule in enumerate(self.rules):
            for field in ("during", "mute"):
                for window in getattr(rule, field):
                    if window not in self.windows:
                        raise ValueError(f"rules.{number}.{field}: there is no window {window!r}")
        return self
