"""Rows of files that no program wrote: each is an offer, or says what is wrong with it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.scheduler import rows

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
