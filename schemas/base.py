"""What all records share: frozen, unknown fields ignored (an older reader must not stop), zones required."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StringConstraints,
)

Id = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")]
Network = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[\x21-\x7e]+$")]
LANGUAGE: Final = r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$"
Language = Annotated[str, StringConstraints(pattern=LANGUAGE)]


def without_nul(given: Any) -> Any:
    """Return a text with U+FFFD for NUL, which PostgreSQL keeps in none; anything else as it is."""
    return given.replace("\x00", "\ufffd") if isinstance(given, str) and "\x00" in given else given


WithoutNul = BeforeValidator(without_nul)  # An event is not refused for one.
Title = Annotated[str, StringConstraints(min_length=1, max_length=300), WithoutNul]
Text = Annotated[str, StringConstraints(min_length=1, max_length=10_000), WithoutNul]
EARLIEST: Final = datetime(100, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)


def clamped(at: datetime) -> datetime:
    """Return a time between the years 100 and 9000: those outside are nobody's, and no zone's arithmetic bears them.

    "9999-12-31T23:59:59Z", which many systems write for an end that is not known, has no time in Tokyo.
    """
    if at.year < EARLIEST.year:
        return EARLIEST
    return at if at.year < LATEST.year else LATEST


def _of_somebody(at: datetime) -> datetime:
    if clamped(at) != at:
        raise ValueError(f"a time between the years {EARLIEST.year} and {LATEST.year}")
    return at


Instant = Annotated[AwareDatetime, AfterValidator(clamped)]
Chosen = Annotated[AwareDatetime, AfterValidator(_of_somebody)]  # A person's own, who can be asked.
Severity = Literal["info", "minor", "major", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "minor", "major", "critical")


class Value(BaseModel):
    """A part of a record. Equal by value and never changed in place."""

    model_config = ConfigDict(frozen=True, extra="ignore", serialize_by_alias=True)


class Record(Value):
    """One record of a topic; `TYPE` is its CloudEvents type (CloudEvents 1.0, section 3.1.1)."""

    TYPE: ClassVar[str]
