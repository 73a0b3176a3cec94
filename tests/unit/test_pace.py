"""Rates, circuits, back-off and texts: what the publisher decides about a network's limits."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.channels import TextLimit, fits, length
from services.publisher.backoff import LAST_RETRY_S, backoff_s
from services.publisher.channels.bluesky import facets, record_key
from services.publisher.circuit import (
    FAILURES,
    LONGEST_OPEN_S,
    Circuit,
    failed,
    probing,
    unprobed,
    wait_s,
)
from services.publisher.rates import Go, Purpose, Rate, Told, Wait, heard, take
from services.publisher.texts import parts
from tests.builders import AT, a_post

IN_A_MINUTE = AT + timedelta(minutes=1)
MASTODON = TextLimit(most=500, unit="graphemes", link=23, short_mentions=True)
BLUESKY = TextLimit(most=300, unit="graphemes", bytes=3_000)
X = TextLimit(most=280, unit="weighted", link=23)


@pytest.mark.parametrize(
    ("purpose", "left", "may"),
    [
        ("offer", 21, True),
        ("offer", 20, False),
        ("retraction", 11, True),
        ("retraction", 10, False),
        ("update", 1, True),
        ("update", 0, False),
    ],
)
def test_a_reserve_of_each_window_is_kept_for_updates(
    purpose: Purpose, left: int, may: bool
) -> None:
    rate = Rate(limit=100, remaining=left, reset_at=IN_A_MINUTE)
    found = take(rate, purpose, now=AT)
    assert found == (
        Go(Rate(limit=100, remaining=left - 1, reset_at=IN_A_MINUTE)) if may else Wait(60)
    )


def test_behind_its_reset_a_window_is_full_again() -> None:
    rate = Rate(limit=100, remaining=0, reset_at=AT)
    found = take(rate, "offer", now=AT)
    assert isinstance(found, Go)
    assert found.rate.remaining == 99


@pytest.mark.parametrize("purpose", ["offer", "update"])
def test_behind_a_429_that_told_no_limit_nothing_is_limited_any_more(purpose: Purpose) -> None:
    """A receiver that once said `Retry-After` got one post a minute from then on, updates too."""
    rate = heard(None, Told(limit=0, remaining=0, reset_at=AT + timedelta(seconds=5), refused=True))
    assert take(rate, purpose, now=AT) == Wait(5)
    later = AT + timedelta(seconds=5)
    for _ in range(3):
        found = take(rate, purpose, now=later)
        assert isinstance(found, Go)
        rate = found.rate


def test_a_clock_that_is_wrong_does_not_stop_an_account_for_a_year() -> None:
    rate = Rate(limit=1, remaining=0, reset_at=AT + timedelta(days=365))
    assert take(rate, "update", now=AT) == Wait(3600)


def test_answers_that_overtake_each_other_do_not_give_back_what_was_taken() -> None:
    known = Rate(limit=100, remaining=40, reset_at=IN_A_MINUTE)
    older = Told(limit=100, remaining=45, reset_at=IN_A_MINUTE)
    assert heard(known, older).remaining == 40
    next_window = Told(limit=100, remaining=99, reset_at=IN_A_MINUTE + timedelta(minutes=1))
    assert heard(known, next_window).remaining == 99
    refused = Told(limit=100, remaining=3, reset_at=IN_A_MINUTE, refused=True)
    assert heard(None, refused).remaining == 0


def test_a_circuit_opens_behind_five_failures_lets_one_try_and_closes_behind_a_success() -> None:
    one = Circuit()
    for _ in range(FAILURES - 1):
        one = failed(one, "500", now_s=0)
        assert wait_s(one, now_s=0) == 0
    one = failed(one, "500", now_s=0)
    assert wait_s(one, now_s=0.25) == 0.75
    assert wait_s(one, now_s=1) == 0, "half-open"
    assert wait_s(probing(one, now_s=1), now_s=1) == 1, "the others wait for the one that tries"
    assert wait_s(unprobed(probing(one, now_s=1), now_s=1), now_s=1) == 0, "it had nothing to send"
    for _ in range(30):
        one = failed(one, "500", now_s=0)
    assert wait_s(one, now_s=0) == LONGEST_OPEN_S
    assert wait_s(Circuit(), now_s=0) == 0


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_the_pause_behind_a_failure_has_a_stated_end(failures: int, chance: float) -> None:
    assert 0 < backoff_s(failures, chance=chance) <= LAST_RETRY_S


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("café", MASTODON, 4),
        ("👩‍👩‍👧‍👦", MASTODON, 1),
        ("👩‍👩‍👧‍👦", X, 2),
        ("日本", X, 4),
        ("hello", X, 5),
        ("see https://northlink.example/a/very/long/address?with=much, now", MASTODON, 4 + 23 + 5),
        ("@northlink@social.example hello", MASTODON, len("@northlink hello")),
        ("👍", TextLimit(most=10, unit="utf16"), 2),
    ],
)
def test_a_text_is_as_long_as_the_network_counts_it(
    text: str, limit: TextLimit, expected: int
) -> None:
    assert length(text, limit) == expected


def test_a_text_that_is_short_in_characters_may_be_too_large_in_bytes() -> None:
    assert not fits("👩‍👩‍👧‍👦" * 299, BLUESKY)


def test_a_text_that_is_too_long_is_divided_between_sentences() -> None:
    text = " ".join(f"This is sentence number {n} of a long update." for n in range(20))
    found = parts(text, BLUESKY)
    assert len(found) == 4
    assert found[0].endswith(". (1/4)")


@given(
    st.text(alphabet="ab .\n👍é", min_size=1, max_size=3_000), st.sampled_from([MASTODON, BLUESKY])
)
def test_parts_fit_and_leave_nothing_out(text: str, limit: TextLimit) -> None:
    found = parts(text, limit)
    assert all(fits(part, limit) for part in found)
    if len(found) > 1:
        whole = "".join(part.rsplit(" (", 1)[0] for part in found)
        assert "".join(whole.split()) == "".join(text.split())


def test_a_text_of_a_novel_is_refused() -> None:
    with pytest.raises(ValueError, match="would need"):
        parts("word " * 10_000, MASTODON)


def test_a_record_key_is_the_same_for_every_try_and_another_for_every_post() -> None:
    post = a_post()
    assert record_key(post, "a", 0) == record_key(post, "a", 0)
    keys = {record_key(post, f"post-{n}", part) for n in range(50) for part in range(2)}
    assert len(keys) == 100
    assert all(
        len(key) == 13 and set(key) <= set("234567abcdefghijklmnopqrstuvwxyz") for key in keys
    )
    assert max(keys) < "k"  # The highest bit of a TID is 0 (atproto.com/specs/tid).


def test_links_and_tags_are_found_by_their_bytes() -> None:
    text = "Grüße: https://northlink.example/é #Coast"
    link, tag = facets(text)
    raw = text.encode()
    assert raw[link["index"]["byteStart"] : link["index"]["byteEnd"]].decode() == (
        "https://northlink.example/é"
    )
    assert tag["features"][0]["tag"] == "Coast"
    assert raw[tag["index"]["byteStart"] : tag["index"]["byteEnd"]] == b"#Coast"


@pytest.mark.parametrize("unit", ["graphemes", "utf16", "weighted"])
@given(text=st.text(max_size=60), most=st.integers(1, 40), link=st.sampled_from([0, 23]))
def test_what_fits_at_a_glance_fits_when_counted(
    unit: Any, text: str, most: int, link: int
) -> None:
    limit = TextLimit(most=most, unit=unit, link=link, short_mentions=True)
    for said in (text, f"{text} https://a.example", f"{text} @ada@social.example"):
        assert fits(said, limit) == (length(said, limit) <= most)
