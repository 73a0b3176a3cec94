"""Fences, the ledger's tables, offsets, and which accounts an update goes to."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.labels import parse_matchers
from services.kit.settings import read_file
from services.publisher.accounts import (
    Accounts,
    AnyAccount,
    EmailAccount,
    FeedAccount,
    WebPushAccount,
    posts_of,
)
from services.publisher.app import NETWORKS
from services.publisher.fence import VOID_AFTER_S, begin
from services.publisher.ledger import (
    FOLLOWS,
    Capabilities,
    GiveUp,
    LookUp,
    NotThere,
    SendAgain,
    after_unknown,
    before,
    in_doubt_and_held,
)
from services.publisher.offsets import Offsets
from services.publisher.page import PageSettings
from tests.builders import an_update


def test_a_fence_passes_when_every_partition_has_echoed_it() -> None:
    fence = begin(3, now_s=10.0, partitions=3)
    for partition in (0, 2):
        fence = fence.echo(3, partition)
    assert not fence.passed
    assert fence.echo(3, 1).passed


def test_the_echo_of_an_older_fence_says_nothing() -> None:
    fence = begin(3, now_s=10.0, partitions=1)
    assert fence.echo(2, 0) == fence


def test_a_fence_is_void_after_ten_seconds() -> None:
    fence = begin(1, now_s=10.0, partitions=1)
    assert not fence.void(10.0 + VOID_AFTER_S - 0.001)
    assert fence.void(10.0 + VOID_AFTER_S)


FOR_EVER, AN_HOUR, NEVER = (
    Capabilities(idempotent_s=s, can_delete=True) for s in (math.inf, 3600, 0)
)
BY_KEY, BY_WORDS = (
    Capabilities(idempotent_s=60, can_delete=True, reads_back=how) for how in ("exact", "search")
)


@pytest.mark.parametrize(
    ("kind", "capabilities", "age_s", "decision"),
    [
        ("offer", FOR_EVER, 10**9, SendAgain),
        ("offer", AN_HOUR, 60, SendAgain),
        ("offer", AN_HOUR, 3600, GiveUp),
        ("offer", NEVER, 0, GiveUp),
        ("offer", NEVER, -20, GiveUp),  # A clock was set back, or another's is behind.
        ("offer", AN_HOUR, -20, SendAgain),
        ("update", NEVER, 0, SendAgain),
        ("update", AN_HOUR, 4000, SendAgain),
        ("offer", BY_KEY, 59, SendAgain),
        ("offer", BY_KEY, 61, LookUp),
        ("update", BY_WORDS, 61, LookUp),
    ],
)
def test_what_an_unknown_outcome_means(
    kind: str, capabilities: Capabilities, age_s: float, decision: type[object]
) -> None:
    assert kind in ("offer", "update")
    found = after_unknown(kind, capabilities, age_s=age_s)  # type: ignore[arg-type]
    assert isinstance(found, decision)


@pytest.mark.parametrize(
    ("kind", "capabilities", "decision"),
    [
        ("offer", BY_KEY, SendAgain),
        ("offer", BY_WORDS, GiveUp),  # It may still be on its way: a search proves no absence.
        ("update", BY_WORDS, SendAgain),
    ],
)
def test_what_it_means_that_a_post_was_looked_for_and_not_found(
    kind: str, capabilities: Capabilities, decision: type[object]
) -> None:
    assert kind in ("offer", "update")
    found = after_unknown(kind, capabilities, age_s=100, looked=True)  # type: ignore[arg-type]
    assert isinstance(found, decision)


@pytest.mark.parametrize(
    ("capabilities", "parts", "looked", "decision"),
    [
        (BY_KEY, 1, False, LookUp),
        (BY_WORDS, 3, False, LookUp),
        (FOR_EVER, 1, False, GiveUp),  # It could only be sent again.
        (BY_KEY, 1, True, NotThere),
        (BY_WORDS, 1, True, GiveUp),
        (BY_KEY, 3, True, GiveUp),  # A part may stand where the whole does not.
    ],
)
def test_what_may_have_gone_out_is_looked_for_where_it_may_not_be_sent_again(
    capabilities: Capabilities, parts: int, looked: bool, decision: type[object]
) -> None:
    found = in_doubt_and_held(capabilities, parts=parts, looked=looked)
    assert isinstance(found, decision)


def test_nothing_follows_what_is_settled_for_good() -> None:
    assert not FOLLOWS["retracted"]
    assert FOLLOWS["uncertain"] == {"sent"}, "if whoever sent it hears so"
    assert not before("intent"), "an attempt begins so"
    assert set(before("retracting")) == {"sent", "retraction_failed"}


@given(st.lists(st.integers(0, 50), unique=True, min_size=1), st.data())
def test_a_group_commits_up_to_the_first_record_that_is_not_settled(
    offsets: list[int], data: st.DataObject
) -> None:
    known = Offsets()
    settle = {offset: known.begin(1, offset) for offset in sorted(offsets)}
    settled = data.draw(st.lists(st.sampled_from(offsets), unique=True))
    for offset in settled:
        settle[offset]()
    left = set(offsets) - set(settled)
    assert known.committable() == {1: min(left, default=max(offsets) + 1)}
    known.committed(known.committable())
    assert known.committable() == {}


def test_what_was_begun_before_a_partition_was_lost_settles_nothing_behind_its_return() -> None:
    """A publisher that had lost a partition, and had it again, committed what it had only begun anew."""
    known = Offsets()
    old = known.begin(1, 5)
    known.forget(1)
    new = known.begin(1, 5)
    old()
    assert known.committable() == {1: 5}
    new()
    assert known.committable() == {1: 6}


def test_an_update_makes_one_post_for_each_account_and_language() -> None:
    accounts = {
        "web": FeedAccount(channel="feed", updates=()),
        "english": FeedAccount(channel="feed", updates=(), languages=("en",)),
        "offers-only": FeedAccount(channel="feed"),
        "valley": FeedAccount(channel="feed", updates=parse_matchers('line="valley"')),
    }
    found = [post.post_id for post in posts_of(an_update(), accounts)]
    assert found == ["upd-2-0-0.web.en", "upd-2-0-0.web.fr", "upd-2-0-0.english.en"]


def test_an_account_gets_the_words_that_are_closest_to_its_readers() -> None:
    variants = [
        {"language": "en", "family": "short", "text": "short"},
        {"language": "en", "audience": "business", "text": "business"},
        {"language": "en", "family": "short", "audience": "business", "text": "short business"},
    ]
    update = an_update(texts={"en": "all", "fr": "tous"}, variants=variants)
    everything = parse_matchers("{}")
    accounts = {
        f"{family}-{audience or 'all'}": FeedAccount(
            channel="feed", updates=everything, family=family, audience=audience
        )
        for family, audience in (
            ("long", None), ("short", None), ("short", "families"), ("long", "business"), ("short", "business"),
        )
    }  # fmt: skip
    said = {(post.account, post.language): post.text for post in posts_of(update, accounts)}
    assert [said[name, "en"] for name in accounts] == [
        "all",
        "short",
        "short",
        "business",
        "short business",
    ]
    assert {said[name, "fr"] for name in accounts} == {"tous"}


def test_a_misspelt_field_of_an_account_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="tokn"):
        Accounts.model_validate(
            {"accounts": {"a": {"channel": "mastodon", "url": "https://a.example", "tokn": "x"}}}
        )


def test_every_kind_of_account_has_a_channel() -> None:
    annotated = get_args(AnyAccount)[0]
    kinds = set(get_args(annotated))
    assert kinds == {*NETWORKS, FeedAccount, EmailAccount, WebPushAccount}


def test_the_examples_are_read(repository: Path) -> None:
    accounts = read_file(repository / "accounts.example.yaml", Accounts).accounts
    assert {type(account) for account in accounts.values()} == {
        *NETWORKS, FeedAccount, EmailAccount, WebPushAccount,
    }  # fmt: skip
    assert read_file(repository / "page.example.yaml", PageSettings).languages == ("en", "fr")


def test_a_file_of_accounts_names_the_field_and_tells_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "accounts.yaml"
    file.write_text("accounts: {a: {channel: discord, token: the-secret, webhook: the-secret}}")
    with pytest.raises(ValueError, match="either it, or token and channel_id") as told:
        read_file(file, Accounts)
    assert "the-secret" not in str(told.value)
    assert "accounts.a" in str(told.value)


def test_a_channel_that_says_it_reads_back_does_and_no_other() -> None:
    for channel in NETWORKS.values():
        can = getattr(channel, "capabilities", None)
        if isinstance(can, Capabilities):
            assert (can.reads_back != "none") == hasattr(channel, "look_up"), channel
