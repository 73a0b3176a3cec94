"""Who may write to ops.disruptions may not yet say everything there."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from schemas import envelope
from schemas.base import Record
from schemas.disruptions import Fence, ReleaseHold
from schemas.envelope import Envelope, Unreadable
from schemas.signing import HEADER, SIGNED_S, SigningKeys
from services.cli import app
from tests.builders import a_disruption

NOON = datetime(2026, 7, 17, 12, tzinfo=UTC)
RELEASE = ReleaseHold(hold_id="hold-1", author="ann", reason="it is over")
FENCE = Fence(publisher="p", number=1)
SECRETS = {
    name: base64.b64encode(secrets.token_bytes(32)).decode()
    for name in ("detector", "control", "other")
}


def keys(*names: str, **of_control: Any) -> SigningKeys:
    """Return a file's keys; the detector's may sign everything."""
    made: list[dict[str, Any]] = [{"name": name, "secret": SECRETS[name]} for name in names]
    for one in made:
        one.update({"may": "everything"} if one["name"] == "detector" else of_control)
    return SigningKeys.model_validate({"keys": made})


OURS = keys("detector", "control")


def arrived(
    record: Record, *, by: SigningKeys, at: SigningKeys = OURS, after_s: float = 0, **changed: Any
) -> Envelope | Unreadable:
    """Return what the reader makes of a record; `changed` is what came of it on its way, `after_s` how long that took."""
    sent: dict[str, Any] = {
        "value": envelope.write_value(record), "event_id": "e-1", "source": "/control-room",
    }  # fmt: skip
    signed = by.headers_of(record, **sent, at=NOON)
    sent |= changed
    headers = envelope.write_headers(record, event_id=sent["event_id"], source=sent["source"])
    raw = [(name, text.encode()) for name, text in (headers | signed).items()]
    found = envelope.read(raw, sent["value"], allowed=(type(a_disruption()), ReleaseHold, Fence))
    return at.proven(found, raw, sent["value"], appended_at=NOON + timedelta(seconds=after_s))


@pytest.mark.parametrize(
    ("record", "by"),
    [
        (RELEASE, keys("detector")),
        (a_disruption(), keys("detector")),
        (a_disruption(), keys("control")),
        (FENCE, SigningKeys()),
    ],
)
def test_what_a_key_of_ours_may_sign_is_believed(record: Record, by: SigningKeys) -> None:
    found = arrived(record, by=by)
    assert isinstance(found, Envelope)
    assert found.record == record


def test_without_keys_nothing_is_signed_and_all_is_believed() -> None:
    assert SigningKeys().headers_of(RELEASE, b"{}", event_id="e", source="s", at=NOON) == {}
    assert isinstance(arrived(RELEASE, by=SigningKeys(), at=SigningKeys()), Envelope)


@pytest.mark.parametrize(
    ("record", "by", "changed", "said"),
    [
        (RELEASE, SigningKeys(), {}, "is missing"),
        (RELEASE, keys("other"), {}, "no key of ours made it: 'other'"),
        (RELEASE, keys("control"), {}, "control may not sign this interlock.release-hold.v1"),
        (RELEASE, OURS, {"event_id": "e-2"}, "is not what detector would sign"),
        (RELEASE, OURS, {"source": "/people/bob"}, "is not what detector would sign"),
        (
            RELEASE, OURS, {"value": envelope.write_value(RELEASE.model_copy(update={"hold_id": "h"}))},
            "is not what detector would sign",
        ),
    ],
)  # fmt: skip
def test_what_is_not_proven_cannot_be_read(
    record: Record, by: SigningKeys, changed: dict[str, Any], said: str
) -> None:
    found = arrived(record, by=by, **changed)
    assert isinstance(found, Unreadable)
    assert found.error.startswith(HEADER)
    assert said in found.error


def test_a_key_of_one_network_speaks_for_no_other() -> None:
    limited = keys("detector", "control", networks=["northlink"])
    by = keys("control")
    assert isinstance(arrived(a_disruption(), by=by, at=limited), Envelope)
    found = arrived(a_disruption(network="southlink"), by=by, at=limited)
    assert isinstance(found, Unreadable)
    assert "control may not sign this interlock.disruption.v1" in found.error


@pytest.mark.parametrize("after_s", [-SIGNED_S, 0, SIGNED_S])
def test_a_signature_counts_for_some_minutes(after_s: float) -> None:
    assert isinstance(arrived(RELEASE, by=OURS, after_s=after_s), Envelope)


@pytest.mark.parametrize(
    ("after_s", "said"),
    [
        (SIGNED_S + 1, "was made 301 s before Kafka got it, and may be 300 s off"),
        (-SIGNED_S - 1, "was made -301 s before Kafka got it, and may be 300 s off"),
        (8 * 86_400, "was made 691200 s before"),
    ],
)
def test_what_is_repeated_later_cannot_be_read(after_s: float, said: str) -> None:
    found = arrived(RELEASE, by=OURS, after_s=after_s)
    assert isinstance(found, Unreadable)
    assert said in found.error


def signed(seconds: bytes, value: bytes = b"{}") -> bytes:
    """Return the header that this module's document describes."""
    parts = (RELEASE.TYPE.encode(), "/é".encode(), b"e-1", seconds, value)
    whole = b"".join(str(len(part)).encode() + b":" + part + b"," for part in parts)
    digest = hmac.new(base64.b64decode(SECRETS["detector"]), whole, hashlib.sha256).digest()
    return b"v2,detector," + seconds + b"," + base64.b64encode(digest)


def test_the_signature_is_what_its_document_says() -> None:
    value = envelope.write_value(RELEASE)
    header = signed(str(int(NOON.timestamp())).encode(), value).decode()
    sent: dict[str, Any] = {"event_id": "e-1", "source": "/é", "at": NOON}
    assert OURS.headers_of(RELEASE, value, **sent) == {HEADER: header}


def test_the_lines_of_the_documentation_sign_what_is_believed(repository: Path) -> None:
    code = (
        (repository / "docs" / "kafka.md")
        .read_text()
        .partition("```python\n")[2]
        .partition("```")[0]
    )
    value = envelope.write_value(a_disruption())
    given: dict[str, Any] = {
        "base64": base64, "hmac": hmac, "time": time, "secret": SECRETS["control"], "value": value,
        "type": a_disruption().TYPE.encode(), "source": "/é".encode(), "id": b"e-1",
    }  # fmt: skip
    exec(code.replace("traffic-control", "control"), given)  # noqa: S102  # Ours.
    found = Envelope(record=a_disruption(), event_id="e-1", source="/é")
    now = datetime.now(UTC)
    assert OURS.proven(found, [given["header"]], value, appended_at=now) == found


def reads(given: bytes) -> Envelope | Unreadable:
    found = Envelope(record=RELEASE, event_id="e-1", source="/é")
    return OURS.proven(found, [(HEADER, given)], b"{}", appended_at=NOON)


@pytest.mark.parametrize(
    "given", [b"\xff,\xff,\xff", b"v2", b"v2,detector", b"v2,detector,1,eA==", b"v1,detector,eA=="]
)
def test_a_strange_signature_is_refused(given: bytes) -> None:
    assert isinstance(reads(given), Unreadable)


@pytest.mark.parametrize("seconds", [b"", b"-1", b"1e9", b"\xb2", b"9" * 5_000, b"9" * 13])
def test_a_time_that_is_none_is_refused_although_it_is_signed(seconds: bytes) -> None:
    assert isinstance(reads(signed(seconds)), Unreadable)
    assert isinstance(reads(signed(str(int(NOON.timestamp())).encode())), Envelope)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"secret": "c2hvcnQ="}, "keys.0.secret: Value error, base64 of at least 32 bytes"),
        ({"name": "a,b"}, "keys.0.name"),
        ({"may": "everything", "networks": ["n"]}, "is not limited to some"),
        ({"roles": ["admin"]}, "keys.0.roles"),
    ],
)
def test_a_wrong_file_of_keys_is_refused_by_the_field(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SigningKeys.model_validate({"keys": [{"name": "a", "secret": SECRETS["other"]} | wrong]})
    assert said in envelope.in_words(caught.value)


def test_two_keys_have_two_names() -> None:
    with pytest.raises(ValidationError, match="two have the same name"):
        keys("other", "other")


def test_a_secret_is_not_shown() -> None:
    assert SECRETS["detector"] not in repr(OURS) + str(OURS.model_dump())


def test_the_command_makes_a_file_that_is_read(tmp_path: Any) -> None:
    from services.kit.settings import read_file

    told = CliRunner().invoke(app, ["keys", "signing", "control", "--network", "northlink"])
    file = tmp_path / "signing.yaml"
    file.write_text(told.output)
    (made,) = read_file(file, SigningKeys).keys
    assert (made.name, made.may, made.networks) == ("control", "disruptions", ("northlink",))
    told = CliRunner().invoke(app, ["keys", "signing", "a", "--everything", "--network", "n"])
    assert told.exit_code == 1
    assert "is not limited to some" in told.output
