"""Rows of files that no program wrote: each is an offer, or says what is wrong with it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.scheduler import rows
from services.scheduler.bodies import PostBody

HEAD = "account,text,due_at,label.line"
ROW = "social,Half price,2099-01-01T00:00:00Z,coast"


def test_a_line_end_within_the_names_is_no_csv() -> None:
    """The line of names was read outside of what catches that."""
    (found,) = rows.read("account,te\rxt\nsocial,Half price", "csv", first=1)
    assert found.problems[0][1].startswith("no CSV: new-line character")


@given(st.text())
def test_whatever_a_file_is_each_row_is_an_offer_or_says_why_not(text: str) -> None:
    for content in (text, f"{HEAD}\n{text}\n{ROW}"):
        for form in ("csv", "ndjson"):
            assert all(row.body or row.problems for row in rows.read(content, form, first=1))


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=12),
    st.sampled_from(["2099-01-01T00:00:00Z", "social", "next", "en"]),
    st.lists(st.text(max_size=4), max_size=2),
    st.dictionaries(st.sampled_from(["line", "url", "alt"]), st.text(max_size=4), max_size=2),
)  # fmt: skip
FIELDS = [*rows.PLAIN, "accounts", "labels", "thread", "media", "card", "variants", "threads"]
GOOD = {"account": "social", "text": "Half price", "due_at": "2099-01-01T00:00:00Z"}


@given(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4))
def test_a_line_means_the_same_read_at_once_or_by_way_of_python(some: dict[str, Any]) -> None:
    given = GOOD | some
    try:
        meant = PostBody.model_validate(given)
    except ValidationError:
        meant = None
    (row,) = rows.read(json.dumps(given), "ndjson", first=1)
    assert row.body == meant
    assert bool(row.problems) == (meant is None)
