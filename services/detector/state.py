"""What the fold works on: one record of the log, the state, and what a record causes.

The state is never changed in place: large maps are persistent (a changed one shares all else with
the one before it), so that a record costs what it changes and not what is known. Their order is
none: whoever says something in an order sorts first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from pydantic import GetCoreSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, core_schema
from rpds import HashTrieMap

from schemas.base import Record
from schemas.disruptions import Disruption
from schemas.envelope import Unreadable
from schemas.holds import HoldOpened
from schemas.incidents import Incident
from schemas.policies import Moment, Policy, Rule

T = TypeVar("T")
V = TypeVar("V")

if TYPE_CHECKING:
    Map = HashTrieMap
else:

    class Map:
        """`Map[str, V]` in an annotation: a persistent map that a snapshot holds as an object."""

        def __class_getitem__(cls, of: tuple[Any, Any]) -> Any:
            from typing import Annotated

            return Annotated[HashTrieMap, _AsObject(of[1])]


@dataclass(frozen=True, slots=True)
class _AsObject:
    values: Any

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        inner = core_schema.dict_schema(
            core_schema.str_schema(), handler.generate_schema(self.values)
        )
        return core_schema.no_info_before_validator_function(
            dict,
            core_schema.no_info_after_validator_function(HashTrieMap, inner),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda found: dict(items_of(found)), return_schema=inner
            ),
        )


def items_of(found: Map[str, V]) -> list[tuple[str, V]]:
    """Return all that is in a map, in no order: as it would be pickled, in one go.

    Its own iterators walk anew from the root for each, which takes many times as long.
    """
    items: Any = found.__reduce__()[1][0]
    return list(items)


def values_of(found: Map[str, V]) -> list[V]:
    """Return the values of a map, in no order."""
    return [value for _, value in items_of(found)]


WaitsFor = Literal["", "period", "lasting", "count"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one source says of one disruption, as last heard, and which holds it asks for.

    `scopes` are matchers in their one written form. `due_at` is when time alone changes it.
    `overruled`: a person said that it is over, whatever its source says, until that has news.
    """

    key: str
    event: Disruption
    source: str
    first_at: datetime
    scopes: tuple[str, ...] = ()
    status: Literal["open", "over", "overruled"] = "open"
    due_at: datetime | None = None
    waits_for: WaitsFor = ""
    seen: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        return self.status == "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One hold of an incident. A person may have released it: then it is not opened again."""

    scope: str
    hold_id: str
    is_open: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One incident, and what the next record about it must be judged by.

    `primary` is the key of the worst report that is open: the incident says what it says.
    `asked`: how many open reports ask for a hold, by scope.
    `is_full`: there were more reports than are kept, so that only a person knows when it is over.
    """

    incident: Incident
    rule: Rule
    reports: Map[str, Report] = field(default_factory=HashTrieMap)
    primary: str = ""
    open_count: int = 0
    asked: Map[str, int] = field(default_factory=HashTrieMap)
    is_full: bool = False
    groups: tuple[str, ...] = ()
    holds: tuple[Held, ...] = ()
    close_at: datetime | None = None
    said: Moment | None = None
    said_at: datetime | None = None
    said_severity: int = 0
    reopened: tuple[datetime, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source whose whole data set is read from time to time. `hold_id`: it is stale, and holds."""

    read_at: datetime
    stale_at: datetime | None = None
    hold_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All that the records of a partition have left behind."""

    policy: Policy | None = None
    stories: Map[str, Story] = field(default_factory=HashTrieMap)  # By incident id, until closed.
    story_of: Map[str, str] = field(default_factory=HashTrieMap)  # Report key to incident id.
    group_of: Map[str, str] = field(default_factory=HashTrieMap)  # Group to incident id.
    waiting: Map[str, Report] = field(default_factory=HashTrieMap)  # No incident yet, by key.
    counts: Map[str, tuple[tuple[datetime, str], ...]] = field(default_factory=HashTrieMap)
    sources: Map[str, Source] = field(default_factory=HashTrieMap)
    other_holds: Map[str, HoldOpened] = field(default_factory=HashTrieMap)  # Of no incident.


class PerStory(Generic[T]):
    """What is made of each story, and made anew only of one that has changed."""

    def __init__(self, make: Callable[[Story], T]) -> None:
        self._make = make
        self._made: dict[str, tuple[Story, T]] = {}

    def of(self, state: State) -> Iterator[tuple[str, T]]:
        """Yield it with its incident's id."""
        before, made = self._made, dict[str, tuple[Story, T]]()
        for name, story in items_of(state.stories):
            known = before.get(name)
            if known is None or known[0] is not story:
                known = (story, self._make(story))
            made[name] = known
        self._made = made
        return ((name, one) for name, (_, one) in made.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One record as it was read from the log.

    `named_at` stands in its ids in place of its time, where two who see it cannot know the same time.
    """

    partition: int
    offset: int
    at: datetime
    body: Record | Unreadable
    event_id: str = ""
    source: str = ""
    named_at: datetime | None = None

    def new_id(self, kind: str, number: int = 0) -> str:
        """Return an id that only this record can give; its time sets a recreated log apart."""
        at = self.named_at or self.at
        return entry_id(kind, partition=self.partition, offset=self.offset, at=at, number=number)


@dataclass(frozen=True, slots=True)
class Step:
    """The state after a record, and what the record makes the detector say, in order."""

    state: State
    outputs: tuple[Record, ...] = ()


_STATE = TypeAdapter(State)
_STORY = TypeAdapter(Story)


@dataclass(slots=True)
class Turn:
    """One record's turn: what it has changed and said so far. It lives for one call of `fold`."""

    state: State
    entry: Entry
    outputs: list[Record] = field(default_factory=list)
    _given: dict[str, int] = field(default_factory=dict)

    @property
    def step(self) -> Step:
        return Step(self.state, tuple(self.outputs))

    def new_id(self, kind: str) -> str:
        """Return the next id of its kind that this record gives."""
        number = self._given.get(kind, 0)
        self._given[kind] = number + 1
        return self.entry.new_id(kind, number)

    def change(self, **values: Any) -> None:
        self.state = replace(self.state, **values)

    def say(self, record: Record) -> None:
        self.outputs.append(record)

    def keep(self, story: Story) -> None:
        """Keep a story as it now is, and tell how its incident stands where that has changed."""
        incident = story.incident
        known = self.state.stories.get(incident.incident_id)
        changed = known is None or (known.incident is not incident and known.incident != incident)
        if changed and incident.changed_at != self.entry.at:
            incident = incident.model_copy(update={"changed_at": self.entry.at})
            story = replace(story, incident=incident)
        self.change(stories=self.state.stories.insert(incident.incident_id, story))
        if changed:
            self.say(incident)


def dump(state: State) -> dict[str, Any]:
    """Return a state as JSON has it."""
    found: dict[str, Any] = _STATE.dump_python(state, mode="json", exclude_defaults=True)
    return found


def dump_story(story: Story) -> bytes:
    """Return a story as `dump` has it."""
    return _STORY.dump_json(story, exclude_defaults=True)


def load(saved: dict[str, Any]) -> State:
    """Read what `dump` wrote. Raises pydantic's ValidationError."""
    return _STATE.validate_python(saved)


def source_key(network: str, source: str) -> str:
    return f"{network}\n{source}"


def report_key(network: str, source: str, disruption_id: str) -> str:
    return f"{network}\n{source}\n{disruption_id}"


def reports_of(state: State) -> Iterator[Report]:
    """Yield all reports, those that wait as well."""
    yield from values_of(state.waiting)
    for story in values_of(state.stories):
        yield from values_of(story.reports)


def entry_id(kind: str, *, partition: int, offset: int, at: datetime, number: int = 0) -> str:
    """Return the id derived from a record's place and time; `partition_of` reads it."""
    tail = f"-{number}" if number else ""
    return f"{kind}-{partition}-{offset}-{round(at.timestamp() * 1000):x}{tail}"


def place_of(derived_id: str) -> tuple[int, int] | None:
    """Return the partition and the offset that an id was derived from, or None where it is not one of ours."""
    parts = derived_id.split("-")
    if (
        len(parts) in (4, 5)
        and all(p.isascii() for p in parts)
        and parts[1].isdigit()
        and parts[2].isdigit()
    ):
        return int(parts[1]), int(parts[2])
    return None


def partition_of(derived_id: str) -> int | None:
    """Return the partition that an id was derived in, or None where it is not one of ours."""
    place = place_of(derived_id)
    return place[0] if place else None
