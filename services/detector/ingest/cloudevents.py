"""CloudEvents 1.0 as HTTP carries them: binary, structured and batched (HTTP binding, section 3).

They carry Interlock's own record, `interlock.disruption.v1`, and need no settings. A batch is taken
whole or not at all.
"""

from __future__ import annotations

import json

from cloudevents.core.bindings.http import HTTPMessage, from_http
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from schemas.disruptions import Disruption
from schemas.envelope import Envelope, Unreadable, from_cloud_event
from services.detector.ingest.reading import Refused

BATCH_EVENTS = 500
BATCH_TYPE = "application/cloudevents-batch+json"
STRUCTURED_TYPE = "application/cloudevents+json"


def read(headers: dict[str, str], body: bytes) -> tuple[list[Envelope], list[Refused]]:
    """Return the events of a request, and what was refused of it."""
    if not headers.get("content-type", "").startswith(BATCH_TYPE):
        event = _read_event(headers, body)
        return ([event], []) if isinstance(event, Envelope) else ([], [Refused("", event.error)])
    try:
        events = json.loads(body)
    except (ValueError, RecursionError) as error:
        return [], [Refused("", f"the batch is not JSON: {error}")]
    if not isinstance(events, list) or not 1 <= len(events) <= BATCH_EVENTS:
        return [], [Refused("", f"a batch is a JSON array of 1 to {BATCH_EVENTS} events")]
    found: list[Envelope] = []
    refused: list[Refused] = []
    for number, one in enumerate(events):
        event = _read_event({"content-type": STRUCTURED_TYPE}, json.dumps(one).encode())
        if isinstance(event, Envelope):
            found.append(event)
        else:
            refused.append(Refused(f"/{number}", event.error))
    return found, refused


def read_file(body: bytes) -> tuple[list[Envelope], list[Refused]]:
    """Read a file: one structured event, a batch, or one event a line."""
    if body.lstrip()[:1] == b"[":
        return read({"content-type": BATCH_TYPE}, body)
    lines = [line for line in body.splitlines() if line.strip()]
    if len(lines) > 1 and all(line[:1] == b"{" and line[-1:] == b"}" for line in lines):
        return read({"content-type": BATCH_TYPE}, b"[" + b",".join(lines) + b"]")
    return read({"content-type": STRUCTURED_TYPE}, body)


def _read_event(headers: dict[str, str], body: bytes) -> Envelope | Unreadable:
    try:
        event = from_http(HTTPMessage(headers=headers, body=body), JSONFormat(), CloudEvent)
    except Exception as error:  # The SDK raises its own, json's and plain TypeErrors.
        return Unreadable(error=f"not a CloudEvent 1.0: {error}")
    return from_cloud_event(event, allowed=(Disruption,))
