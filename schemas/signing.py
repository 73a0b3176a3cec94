"""Signatures on `ops.disruptions`: whoever may write there may not yet release a hold there.

Kafka's ACLs are by topic, and fences, disruptions and people's commands share one for the sake of their
order. Where there are signing keys, every record there but a fence carries the header

    interlock-signature: v2,NAME,SECONDS,BASE64

which is HMAC-SHA256 (RFC 2104) by the key of that name over five netstrings (`LENGTH:BYTES,`): CloudEvents'
type, source and id, the seconds since 1970 in decimal at which it was signed, and the record's value, byte by
byte. A record without it, or with a wrong one, or one that Kafka got more than five minutes from that time, is
one that cannot be read: it is kept aside, and it holds offers. Kafka's own clock says when it got a record
(`message.timestamp.type=LogAppendTime`), so that whoever reads it again decides the same.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from datetime import datetime
from functools import cached_property
from typing import Annotated, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from schemas.base import Network, Record
from schemas.disruptions import Disruption, Fence, SourceRead
from schemas.envelope import Envelope, Unreadable

HEADER: Final = "interlock-signature"
VERSION: Final = "v2"
SIGNED_S: Final = 300  # As Standard Webhooks allow. Whoever repeats a record later is refused.
SECONDS_DIGITS: Final = 12
SECRET_BYTES: Final = 32


class SigningKey(BaseModel):
    """A secret that a writer shares with the detectors, and what it may sign.

    `disruptions` are what an operations system reports, of these networks or, where none is named, of all;
    `everything` is for the detectors, which write people's commands.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(pattern=r"^[\w.-]{1,100}$")]
    secret: SecretStr = Field(description=f"base64 of {SECRET_BYTES} random bytes or more")
    may: Literal["everything", "disruptions"] = "disruptions"
    networks: tuple[Network, ...] = ()

    @field_validator("secret")
    @classmethod
    def _is_long(cls, given: SecretStr) -> SecretStr:
        try:
            found = base64.b64decode(given.get_secret_value(), validate=True)
        except binascii.Error:
            found = b""
        if len(found) < SECRET_BYTES:
            raise ValueError(f"base64 of at least {SECRET_BYTES} bytes was expected")
        return given

    @model_validator(mode="after")
    def _limits_disruptions(self) -> Self:
        if self.networks and self.may == "everything":
            raise ValueError("networks: a key that may sign everything is not limited to some")
        return self

    @cached_property
    def _bytes(self) -> bytes:
        return base64.b64decode(self.secret.get_secret_value())

    def digest(self, *parts: bytes) -> str:
        """Return the base64 of the HMAC over these parts, each as a netstring."""
        whole = b"".join(b"%d:%b," % (len(part), part) for part in parts)
        return base64.b64encode(hmac.digest(self._bytes, whole, hashlib.sha256)).decode()

    def may_sign(self, record: Record) -> bool:
        if self.may == "everything":
            return True
        if not isinstance(record, Disruption | SourceRead):
            return False
        return not self.networks or record.network in self.networks


class SigningKeys(BaseModel):
    """The signing keys of a file: the first signs, all are accepted. None at all: nothing is signed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[SigningKey, ...] = ()

    @model_validator(mode="after")
    def _names_are_ones_own(self) -> Self:
        if len(self._named) < len(self.keys):
            raise ValueError("keys: two have the same name")
        return self

    @cached_property
    def _named(self) -> dict[str, SigningKey]:
        return {key.name: key for key in self.keys}

    def headers_of(
        self, record: Record, value: bytes, *, event_id: str, source: str, at: datetime
    ) -> dict[str, str]:
        """Return the header that proves who wrote a record, and when; none without keys. `value` is what is sent."""
        if not self.keys:
            return {}
        first, seconds = self.keys[0], str(int(at.timestamp()))
        digest = first.digest(*_said(record, source, event_id, seconds), value)
        return {HEADER: f"{VERSION},{first.name},{seconds},{digest}"}

    def proven(
        self,
        found: Envelope | Unreadable,
        headers: Iterable[tuple[str, bytes]],
        value: bytes | None,
        *,
        appended_at: datetime,
    ) -> Envelope | Unreadable:
        """Return a record that was read, or why nobody is to believe it; `appended_at` is Kafka's time."""
        if not self.keys or isinstance(found, Unreadable) or isinstance(found.record, Fence):
            return found
        given = dict(headers).get(HEADER, b"")
        why = self._objection(found, given, value or b"", appended_at)
        return (
            Unreadable(error=f"{HEADER}: {why}", event_id=found.event_id, source=found.source)
            if why
            else found
        )

    def _objection(self, found: Envelope, given: bytes, value: bytes, appended_at: datetime) -> str:
        if not given:
            return "is missing"
        version, name, seconds, digest = (*given.decode("latin-1").split(",", 3), "", "", "")[:4]
        key = self._named.get(name)
        if version != VERSION:
            return f"{version[:20]!r} was expected to be {VERSION}"
        if key is None:
            return f"no key of ours made it: {name[:100]!r}"
        wanted = key.digest(*_said(found.record, found.source, found.event_id, seconds), value)
        if not hmac.compare_digest(wanted.encode(), digest.encode("latin-1")):
            return f"is not what {name} would sign"
        if not key.may_sign(found.record):
            return f"{name} may not sign this {found.record.TYPE}"
        return _objection_to_time(seconds, appended_at)


def _objection_to_time(seconds: str, appended_at: datetime) -> str:
    if not (seconds.isdecimal() and len(seconds) <= SECONDS_DIGITS):
        return f"{seconds[:20]!r} is no time in seconds"
    off_s = appended_at.timestamp() - int(seconds)
    if abs(off_s) > SIGNED_S:
        return f"was made {off_s:.0f} s before Kafka got it, and may be {SIGNED_S} s off"
    return ""


def _said(record: Record, source: str, event_id: str, seconds: str) -> tuple[bytes, ...]:
    return (record.TYPE.encode(), source.encode(), event_id.encode(), seconds.encode())
