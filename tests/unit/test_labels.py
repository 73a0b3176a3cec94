"""What a hold covers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schemas.labels import (
    Labels,
    LabelValue,
    Matcher,
    canonical,
    covers,
    format_matchers,
    matches,
    parse_matchers,
)

COAST = {"network": "northlink", "line": "coast"}
VALUES = st.text(min_size=1, max_size=30).filter(lambda text: str(canonical(text)).strip())
MATCHERS = st.lists(
    st.builds(Matcher, name=st.from_regex(r"[a-z_]{1,8}", fullmatch=True), operator=st.sampled_from(["=", "!="]), value=VALUES),
    max_size=4,
).map(tuple)  # fmt: skip


@pytest.mark.parametrize(
    ("matchers", "labels", "covered"),
    [
        ("{}", COAST, True),
        ("{}", {}, True),
        ('line="coast"', COAST, True),
        ('line="valley"', COAST, False),
        ('line="valley"', {"network": "northlink"}, True),
        ('line=~"val.*"', {"network": "northlink"}, True),
        ('line="coast",network="northlink"', COAST, True),
        ('line="coast",network="southlink"', COAST, False),
        ('line=~"coa"', COAST, False),
        ('line=~"coa.*|valley"', COAST, True),
        ('line!="coast"', COAST, False),
        ('line!="valley"', COAST, True),
        ('line!~"v.*"', COAST, True),
    ],
)
def test_what_matchers_cover(matchers: str, labels: dict[str, str], covered: bool) -> None:
    assert covers(parse_matchers(matchers), labels) is covered


def test_an_offer_without_the_label_is_covered_and_a_rule_does_not_match_it() -> None:
    unlabelled = {"network": "northlink"}
    assert covers(parse_matchers('line="coast"'), unlabelled)
    assert not matches(parse_matchers('line="coast"'), unlabelled)


@given(st.from_regex(r'line(=~|!~)"[^"]{1,6}"', fullmatch=True))
def test_what_is_read_can_be_asked(text: str) -> None:
    """A pattern was checked as it was typed and not as it is kept: a hold with it could not be read."""
    try:
        found = parse_matchers(text)
    except ValueError:
        return
    covers(found, COAST)


@given(MATCHERS)
def test_matchers_are_read_as_they_are_written(matchers: tuple[Matcher, ...]) -> None:
    assert parse_matchers(format_matchers(matchers)) == matchers


@given(MATCHERS, st.dictionaries(st.sampled_from(["line", "network", "a"]), VALUES))
def test_a_label_taken_away_never_frees_an_offer(
    matchers: tuple[Matcher, ...], labels: dict[str, str]
) -> None:
    if covers(matchers, labels):
        for name in labels:
            assert covers(matchers, {k: v for k, v in labels.items() if k != name})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "write {} for everything"),
        ("line", 'expected name="value"'),
        ('line="a" network="b"', "expected a comma"),
        ('line=""', "1 to 256 characters"),
        ('line=~"("', "the value of line: not an RE2 pattern: missing"),
        ('line=~"（"', "the value of line: not an RE2 pattern: missing"),  # A bracket, by NFKC.
        ('line=~"\\\x00"', "the value of line: not an RE2 pattern: invalid escape"),
        ('line=~"(a)\\\\1"', "the value of line: not an RE2 pattern: invalid escape"),
        ('{line="a"', "closing brace"),
    ],
)
def test_bad_matchers_say_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("{", r"\{").replace("}", r"\}")):
        parse_matchers(text)


def test_a_pattern_that_would_hang_other_engines_is_quick() -> None:
    labels = {"line": "a" * 256}
    assert not covers(parse_matchers('line=~"(a+)+b"'), labels)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Zu\u0308rich", "Zürich"),  # The ü as two characters.
        ("\uff23\uff2f\uff21\uff33\uff34", "COAST"),  # Full width.
        ("coa\u200bst", "coast"),  # A space of no width.
        ("\u202ecoast\u202c", "coast"),  # Right to left.
        ("North\u00a0Line", "North Line"),
        (" coast\n", "coast"),
        ("e\u200d\u0301", "é"),  # Hidden between a letter and its accent.
    ],
)
def test_what_looks_the_same_is_the_same(written: str, meant: str) -> None:
    hold = parse_matchers(f'line="{meant}"')
    (offer,) = TypeAdapter(Labels).validate_python({"line": written}).values()
    assert offer == meant
    assert covers(hold, {"line": offer})
    assert covers(parse_matchers(f'line="{written}"'.replace("\n", "\\n")), {"line": meant})


@given(VALUES)
def test_the_one_way_to_write_it_stays(text: str) -> None:
    once = TypeAdapter(LabelValue).validate_python(text)
    assert TypeAdapter(LabelValue).validate_python(once) == once


def test_a_label_of_nothing_visible_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least 1 character"):
        TypeAdapter(LabelValue).validate_python("\u200b \u2060")
