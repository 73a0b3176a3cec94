"""The words of a status update."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from services.detector import messages
from tests.builders import AT, a_policy, an_incident

WORDS = {"opened": "{{ title }}", "working": "we work", "resolved": "it is over"}


def written(opened: Any, *, language: str = "en", **incident: Any) -> str:
    policy = a_policy(messages={language: WORDS | {"opened": opened}}, time_zone="Europe/London")
    return messages.write(policy, "opened", an_incident(**incident), at=AT).texts[language]


def test_times_are_in_the_policys_zone() -> None:
    text = written(
        "{{ now }} {{ title }} {{ next_update }}", next_update_at=AT + timedelta(minutes=20)
    )
    assert text == "19:02 Trains are standing 19:22"


def test_a_time_on_another_day_names_the_day_in_the_readers_language() -> None:
    tomorrow: dict[str, Any] = {"next_update_at": AT + timedelta(days=1)}
    assert written("{{ next_update }}", **tomorrow) == "Sunday 19:02"
    assert written("{{ next_update }}", language="fr", **tomorrow) == "dimanche 19:02"


ENDS = [["Until {{ expected_end }}.", "No end is known."], "Sorry."]


def test_a_missing_fact_chooses_another_sentence() -> None:
    known: dict[str, Any] = {"expected_end_at": AT + timedelta(hours=1)}
    assert written(ENDS, **known) == "Until 20:02. Sorry."
    assert written(ENDS) == "No end is known. Sorry."


def test_an_expected_end_that_has_passed_is_none() -> None:
    assert written(ENDS, expected_end_at=AT - timedelta(minutes=1)) == "No end is known. Sorry."


@pytest.mark.parametrize(
    "end", ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00"]
)
def test_an_end_that_no_zone_has_is_none(end: str) -> None:
    """Systems write so that an end is not known. It ended the detector, and each one that read it again."""
    assert written(ENDS, expected_end_at=end) == "No end is known. Sorry."


def test_a_sentence_whose_every_way_lacks_a_fact_is_left_out() -> None:
    assert written(["{{ title }}.", "See {{ link }}."]) == "Trains are standing."


def test_a_title_is_in_the_readers_language_where_the_source_gave_it() -> None:
    titles: dict[str, Any] = {"titles": {"fr": "Les trains sont arrêtés"}}
    assert written("{{ title }}", language="fr", **titles) == "Les trains sont arrêtés"
    assert written("{{ title }}", language="de", **titles) == "Trains are standing"


@pytest.mark.parametrize(
    ("language", "count", "said"),
    [("en", 1, "1 train"), ("en", 3, "3 trains"), ("fr", 0, "0 train"), ("pl", 2, "2 few")],
)
def test_plurals_follow_the_language(language: str, count: int, said: str) -> None:
    other = "many" if language == "pl" else "trains"
    way = f'{{{{ plural({count}, one="train", few="few", other="{other}") }}}}'
    assert written(way, language=language) == said


BROKEN = ["{{ nothing }}", "{% if %}", "{{ ''.__class__.__mro__ }}", "{{ 1 / 0 }}"]


@pytest.mark.parametrize("way", BROKEN)
def test_a_template_that_fails_says_the_title_and_is_named_by_the_check(way: str) -> None:
    assert written(way) == "Trains are standing"
    policy = a_policy(messages={"en": WORDS | {"opened": way}})
    assert ("messages", "en", "opened", 0) in messages.check(policy)


def test_words_that_need_what_is_not_always_known_are_named_by_the_check() -> None:
    policy = a_policy(messages={"en": WORDS | {"opened": "{{ detail }}"}})
    assert list(messages.check(policy)) == [("messages", "en", "opened")]


VARIANTS = [
    {"severity": ["critical"], "opened": "grave"},
    {"planned": True, "opened": "works"},
    {"family": "short", "opened": "short"},
    {"family": "short", "audience": "business", "opened": "short business"},
    {"audience": "business", "resolved": "over, dear partner"},
]


def test_severity_and_planned_works_choose_the_words_for_everybody() -> None:
    policy = a_policy(messages={"en": WORDS | {"variants": VARIANTS}})

    def said(**incident: Any) -> str:
        return messages.write(policy, "opened", an_incident(**incident), at=AT).texts["en"]

    assert said() == "Trains are standing"
    assert said(severity="critical") == "grave"
    assert said(planned=True) == "works"


def test_families_and_audiences_get_words_of_their_own() -> None:
    policy = a_policy(messages={"en": WORDS | {"variants": VARIANTS}})
    opened = messages.write(policy, "opened", an_incident(), at=AT)
    assert {(v.family, v.audience): v.text for v in opened.variants} == {
        ("short", None): "short",
        ("short", "business"): "short business",
    }
    over = messages.write(policy, "resolved", an_incident(), at=AT)
    assert {(v.family, v.audience): v.text for v in over.variants} == {
        (None, "business"): "over, dear partner"
    }


def test_the_policys_own_facts_are_for_its_words() -> None:
    ways = ["It is over.", "Your money back: {{ facts.refund }}"]
    words = {"en": WORDS | {"opened": ways}}
    for facts, said in (({}, "It is over."), ({"refund": "f"}, "It is over. Your money back: f")):
        policy = a_policy(messages=words, facts=facts)
        assert messages.write(policy, "opened", an_incident(), at=AT).texts["en"] == said
