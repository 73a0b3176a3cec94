"""The operations systems that are known by name: their format, network, and how they are trusted.

They stand in a file (`INTERLOCK_SOURCES`), since they are a matter of installation, as channel
accounts are: what a disruption means is the policy's alone.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

import jmespath
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    model_validator,
)

from schemas.base import Language, Network, Severity
from schemas.labels import LabelName, Labels
from schemas.policies import Zone

Format = Literal[
    "alertmanager", "gtfs-realtime", "cap", "siri-sx", "pagerduty", "statuspage", "mapping"
]  # fmt: skip
SourceName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
URL = Annotated[str, Field(pattern=r"^https?://", max_length=2_000)]
MAX_POLL_S = 86_400
UNTIL = 3  # A subscription outlives two requests for it that were lost.


class Part(BaseModel):
    """A part of the file: a name that is not known here is a mistake of whoever wrote it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _is_expression(text: str) -> str:
    try:
        jmespath.compile(text)
    except jmespath.exceptions.JMESPathError as error:
        raise ValueError(f"not a JMESPath expression: {error}") from error
    return text


Expression = Annotated[str, AfterValidator(_is_expression), Field(max_length=2_000)]


class Taken(Part):
    """Where a field comes from: an expression, a table for what it gives, a default."""

    from_: Expression = Field(alias="from")
    table: dict[str, Any] = {}
    default: Any = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, given: Any) -> Any:
        return {"from": given} if isinstance(given, str) else given


class Mapping(Part):
    """How a JSON body becomes disruptions. Expressions are JMESPath's, over one item of `each`.

    Where `only` is false or gives nothing, the item is passed over.
    """

    each: Expression = "@"
    only: Expression | None = None
    fields: dict[str, Taken]
    labels: dict[LabelName, Taken] = {}
    values: dict[LabelName, Taken] = {}
    whole: bool = Field(default=False, description="a body is all that is the case now")

    @model_validator(mode="after")
    def _names_fields_of_a_disruption(self) -> Self:
        from schemas.disruptions import Disruption

        known = set(Disruption.model_fields) - {"labels", "values", "network"}
        for name in self.fields:
            if name not in known:
                raise ValueError(f"fields.{name}: a disruption has {', '.join(sorted(known))}")
        for name in ("disruption_id", "status", "title"):
            if name not in self.fields:
                raise ValueError(f"fields.{name}: Field required")
        return self


class Poll(Part):
    """A source that is asked. `body` makes it a POST, as SIRI's request and response want it.

    In a body `{now}` is the time of asking, and `{until}` that of three more: what a subscription,
    which is asked for again and again, needs as its end.
    """

    url: URL
    every_s: float = Field(default=30, ge=1, le=MAX_POLL_S)
    headers: dict[str, SecretStr] = Field(default={}, description="for this address only")
    hosts: tuple[str, ...] = Field(
        default=(), description="that links and redirects may lead to, at private addresses too"
    )
    body: str | None = None
    index: bool = Field(default=False, description="Atom or RSS: what it links to is read")

    def body_at(self, now: datetime) -> bytes | None:
        """Return the body to send now."""
        if self.body is None:
            return None
        until = now + timedelta(seconds=UNTIL * self.every_s)
        text = self.body
        for name, at in (("{now}", now), ("{until}", until)):
            text = text.replace(name, at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        return text.encode()


class Signature(Part):
    """Who cannot send a key signs: HMAC-SHA256 of the body, in hexadecimal, in a header."""

    header: str = "X-Signature"
    prefix: str = ""
    secret: SecretStr = Field(min_length=16)


class Source(Part):
    """One operations system."""

    format: Format
    network: Network
    labels: Labels = {}
    rename: dict[str, LabelName] = {}
    severities: dict[str, Severity] = {}
    language: Language = "en"
    time_zone: Zone | None = None
    resolve_after_s: int = Field(default=300, ge=1, le=MAX_POLL_S)
    poll: Poll | None = None
    signature: Signature | None = None
    mapping: Mapping | None = None

    @model_validator(mode="after")
    def _a_mapping_has_one(self) -> Self:
        if (self.format == "mapping") != (self.mapping is not None):
            raise ValueError("mapping: belongs to the format `mapping`, and to no other")
        return self


class Sources(Part):
    """The file of sources."""

    sources: dict[SourceName, Source] = {}


def address_of(source: Source, name: str) -> str:
    """Return the CloudEvents `source` of what a source reports."""
    return f"/{source.format}/{name}"
