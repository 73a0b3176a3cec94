"""What all records share: frozen, unknown fields ignored (an older reader must not stop), zones required."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, StringConstraints

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
Instant = AwareDatetime
Severity = Literal["info", "minor", "major", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "minor", "major", "critical")


class Value(BaseModel):
    """A part of a record. Equal by value and never changed in place."""

    model_config = ConfigDict(frozen=True, extra="ignore", serialize_by_alias=True)


class Record(Value):
    """One record of a topic; `TYPE` is its CloudEvents type (CloudEvents 1.0, section 3.1.1)."""

    TYPE: ClassVar[str]
