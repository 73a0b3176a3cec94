"""What is broken is refused by name, whatever it is; and the page that says so is true."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.detector.doors import FORMATS, is_signed
from services.detector.ingest.reading import CannotRead, Reading, as_id, as_name
from services.detector.sources import Signature
from tests.doors import DOORS, PAGE, page, read, source_for, try_all


@pytest.mark.parametrize("kind", sorted(DOORS))
def test_every_sample_is_read_and_every_broken_one_is_taken_or_refused_by_name(kind: str) -> None:
    seen: list[tuple[str, bytes]] = []
    try:
        tried = try_all(kind, lambda name, body: seen.append((name, body)))
    except Exception as error:
        name, body = seen[-1]
        raise AssertionError(f"{name}, broken, raised {error!r}: {body[:2000]!r}") from error
    assert tried.broken > 100
    assert tried.refused > 0


@pytest.mark.parametrize("kind", sorted(DOORS))
@given(body=st.one_of(st.binary(), st.text().map(str.encode), st.from_regex(rb"[\[{<].{0,60}")))
@settings(max_examples=150, deadline=None)
def test_whatever_comes_is_refused_and_never_more(kind: str, body: bytes) -> None:
    try:
        reading = read(kind, body)
    except CannotRead:
        return
    assert isinstance(reading, Reading)


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(title=st.text(), name=st.text(), labels=st.dictionaries(st.text(), _JSON, max_size=40))
@settings(max_examples=200, deadline=None)
def test_whatever_a_source_calls_it_a_disruption_has_an_id_and_labels(
    title: str, name: str, labels: dict[str, Any]
) -> None:
    reading = Reading()
    source = source_for("alertmanager")
    reading.add(
        "/x", source, disruption_id=name or "x", status="opened", title=title or "x", labels=labels
    )
    assert len(reading.reported) + len(reading.refused) == 1
    if reading.refused:
        assert reading.refused[0].where == "/x/title"


def test_ids_and_names_that_may_not_be_are_told_by_their_digest() -> None:
    assert as_id("train-9114") == "train-9114"
    assert as_id("a b") != as_id("a  b")
    assert len(as_id("x" * 1_000)) <= 200
    assert as_id("é").startswith("-") is False
    assert [as_name(n) for n in ("route id", "1st", "Ünder", "--")] == [
        "route_id",
        "_1st",
        "nder",
        "label",
    ]


@pytest.mark.parametrize("given", ["", "v1=", "v1=é", "\x00", ",,,", "v1=" + "0" * 64])
def test_a_signature_that_is_none_is_refused_whatever_it_is_made_of(given: str) -> None:
    """A header beyond ASCII was compared as text, and that raised."""
    signature = Signature.model_validate({"prefix": "v1=", "secret": "x" * 16})
    assert not is_signed(signature, b"{}", given)
    right = hmac.new(b"x" * 16, b"{}", hashlib.sha256).hexdigest()
    assert is_signed(signature, b"{}", f"{given}, v1={right}")


def test_the_page_of_the_doors_is_fresh() -> None:
    """How much is refused and how much is taken in part may differ between versions of libraries."""

    def counted(text: str) -> list[str]:
        return [
            "|".join(line.split("|")[:5]) if line.startswith("| ") else line
            for line in text.splitlines()
        ]

    assert set(DOORS) == {*FORMATS, "cloudevents"}
    assert counted(page()) == counted(PAGE.read_text()), "run: python -m tests.doors"
