"""CloudEvents in and out, and what cannot be read."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from schemas import envelope
from schemas.disruptions import Disruption, Fence
from schemas.envelope import Envelope, Unreadable
from schemas.posts import Card, Outcome
from tests.builders import a_disruption, an_outcome

ALLOWED = (Disruption, Fence)


def _headers(**changed: str | None) -> list[tuple[str, bytes]]:
    known = envelope.write_headers(a_disruption(), event_id="e-1", source="/control-room")
    return [(k, v.encode()) for k, v in (known | changed).items() if v is not None]


def test_binary_mode_is_read_as_it_is_written() -> None:
    value = envelope.write_value(a_disruption())
    found = envelope.read(_headers(), value, allowed=ALLOWED)
    assert isinstance(found, Envelope)
    assert (found.record, found.event_id, found.source) == (a_disruption(), "e-1", "/control-room")
    assert len(found.traceparent) == len(envelope.new_traceparent())


def test_structured_mode_is_read() -> None:
    event = {"specversion": "1.0", "id": "e-1", "source": "/control-room", "type": Disruption.TYPE}
    event["data"] = json.loads(envelope.write_value(a_disruption()))
    headers = [("content-type", b"application/cloudevents+json; charset=utf-8")]
    found = envelope.read(headers, json.dumps(event).encode(), allowed=ALLOWED)
    assert isinstance(found, Envelope)
    assert found.record == a_disruption()


def test_unknown_fields_are_passed_over() -> None:
    value = json.dumps(a_disruption().model_dump(mode="json") | {"new": 1}).encode()
    assert isinstance(envelope.read(_headers(), value, allowed=ALLOWED), Envelope)


@pytest.mark.parametrize(
    ("headers", "value", "said"),
    [
        ([], b"{}", "ce_specversion"),
        (_headers(ce_type="other"), b"{}", "type: 'other' is none of"),
        (_headers(ce_type="interlock.outcome.v1"), b"{}", "type: 'interlock.outcome.v1'"),
        (_headers(ce_id=None), b"{}", "id and source"),
        (_headers(ce_source=""), b"{}", "id and source"),
        (_headers(ce_id="x" * 400), b"{}", "at most 300"),
        (_headers(), b"{", "Invalid JSON"),
        (_headers(), b"\xff\xfe", "Invalid JSON"),
        (_headers(), b'{"network": ""}', "network: String should have at least 1 character"),
        (_headers(), None, "no value"),
        ([("ce_id", b"\xff")], b"{}", "not UTF-8"),
        ([("content-type", b"application/cloudevents+json")], b"[]", "structured mode"),
    ],
)
def test_what_cannot_be_read_is_a_value_that_says_why(
    headers: list[tuple[str, bytes]], value: bytes | None, said: str
) -> None:
    found = envelope.read(headers, value, allowed=ALLOWED)
    assert isinstance(found, Unreadable)
    assert said in found.error


def test_a_nul_in_any_field_is_read_as_what_postgresql_can_keep() -> None:
    """A network answered with one: the scheduler could not write that outcome, nor any behind it."""
    outcome = an_outcome(result="failed", reason="HTTP 400: \x00\x01 \\\x00 \\u0000")
    written = envelope.write_headers(outcome, event_id="o-1", source="/publisher")
    headers = [(name, text.encode()) for name, text in written.items()]
    found = envelope.read(headers, envelope.write_value(outcome), allowed=(Outcome,))
    assert isinstance(found, Envelope)
    assert isinstance(found.record, Outcome)
    assert found.record.reason == "HTTP 400: \ufffd\x01 \\\ufffd \\u0000", "the last is its name"


@pytest.mark.parametrize("url", ["https://x.example/\x00", "https://x.example/a b"])
def test_a_link_has_neither_nul_nor_space(url: str) -> None:
    with pytest.raises(ValidationError, match="url"):
        Card(url=url, title="To the sea")


def test_a_time_without_a_zone_is_refused() -> None:
    value = json.dumps(
        a_disruption().model_dump(mode="json") | {"occurred_at": "2026-10-17T18:02:00"}
    )
    found = envelope.read(_headers(), value.encode(), allowed=ALLOWED)
    assert isinstance(found, Unreadable)
    assert found.error == "occurred_at: Input should have timezone info"
