"""The vocabulary of labels: typos are refused by name, what is missing is said, GTFS fills it."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from schemas.policies import Policy
from schemas.vocabulary import Vocabulary, suggestions, unknown
from services.cli import app
from services.detector import naming
from services.kit.settings import Watched, read_file
from services.scheduler.bodies import Utm
from services.scheduler.links import marked

KNOWN = Vocabulary.model_validate(
    {
        "others": "refuse",
        "labels": {
            "network": {"expected": True},
            "line": {"expected": True, "values": {"coast": "Coast line", "valley": "Valley line"}},
            "region": {},
        },
    }
)


@pytest.mark.parametrize(
    ("labels", "wrong"),
    [
        ({"network": "any", "line": "coast"}, {}),
        ({"line": "caost"}, {"line": "there is no line caost: did you mean coast?"}),
        ({"lien": "coast"}, {"lien": "there is no label lien: did you mean line?"}),
        ({"weather": "rain"}, {"weather": "there is no label weather: there are line, network, region"}),
        ({"line": "metro"}, {"line": "there is no line metro: there are coast, valley"}),
    ],
)  # fmt: skip
def test_a_typo_is_refused_with_the_nearest_name(
    labels: dict[str, str], wrong: dict[str, str]
) -> None:
    assert KNOWN.objections(labels) == wrong


def test_what_is_missing_or_strange_is_said_in_words() -> None:
    assert KNOWN.doubts({"network": "northlink"}) == [
        "without a `line` label this offer is held by every incident on any line"
    ]
    lax = KNOWN.model_copy(update={"others": "warn"})
    assert lax.objections({"lien": "coast"}) == {}
    doubts = lax.doubts({"network": "northlink", "line": "coast", "lien": "x"})
    assert doubts == ["there is no label lien: did you mean line?"]
    assert Vocabulary().doubts({"anything": "goes"}) == [], "without a file nothing is said"


def test_values_are_suggested_by_name_and_by_meaning() -> None:
    known = KNOWN.labels["line"].values
    assert next(iter(suggestions(known, "valey", limit=1))) == "valley"
    assert next(iter(suggestions(known, "COAST LINE", limit=5))) == "coast"
    assert list(suggestions(known, "", limit=1)) == ["coast"]


def test_a_typo_among_two_hundred_thousand_values_is_found() -> None:
    assert "line-123456?" in unknown(
        "line", "line-12345", [f"line-{n}" for n in range(123_456, 323_456)]
    )


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"hold_by": ["network", "lien"]}, ("rules", 0, "hold_by", 1)),
        ({"hold_also": [["region"], ["lin"]]}, ("rules", 0, "hold_also", 1, 0)),
        ({"match": '{line="caost"}'}, ("rules", 0, "match")),
        ({"match": '{alertname="anything",severity="major",line=~"co.*"}'}, None),
    ],
)  # fmt: skip
def test_a_policy_is_checked_by_the_same_names(
    change: dict[str, Any], where: tuple[str | int, ...] | None
) -> None:
    policy = Policy.model_validate({"name": "p", "rules": [{"name": "r"} | change]})
    assert set(naming.check(policy, KNOWN)) == ({where} if where else set())
    assert naming.check(policy, Vocabulary()) == {}


def test_a_policys_other_parts_are_checked_too() -> None:
    policy = Policy.model_validate(
        {
            "name": "p",
            "rules": [{"name": "r"}],
            "implied": {"line": {"coats": {"region": "west"}}},
            "stale": [{"source": "x", "after_s": 9, "hold": '{lien="coast"}'}],
            "inhibitions": [{"by": '{line="vally"}', "over": "{}"}],
            "unreadable_holds": '{line="coasts"}',
        }
    )
    assert set(naming.check(policy, KNOWN)) == {
        ("implied", "line", "coats"), ("stale", 0, "hold"), ("inhibitions", 0, "by"), ("unreadable_holds",),
    }  # fmt: skip


def a_feed(folder: Path) -> Path:
    file = folder / "feed.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(
            "routes.txt",
            "\ufeffroute_id,route_short_name,route_long_name\r\nC1,Coast,Arden to Saltmouth\r\n",
        )
        archive.writestr(
            "stops.txt",
            "stop_id,stop_name,parent_station\r\nARD,Arden,\r\nARD-1,Arden platform 1,ARD\r\n",
        )
    return file


def test_gtfs_fills_lines_and_stops_and_leaves_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "labels.yaml"
    file.write_text("labels: {region: {means: part, values: [west]}, line: {values: [old]}}\n")
    run = CliRunner()
    feed = str(a_feed(tmp_path))
    tried = run.invoke(app, ["labels", "import", feed, "--into", str(file), "--dry-run"])
    assert "line: 1 values, 1 new, 1 gone" in tried.output
    assert "old" in read_file(file, Vocabulary).labels["line"].values, "nothing was written"
    assert run.invoke(app, ["labels", "import", feed, "--into", str(file)]).exit_code == 0
    found = read_file(file, Vocabulary).labels
    assert found["line"].values == {"C1": "Coast Arden to Saltmouth"}
    assert found["stop"].values == {"ARD": "Arden"}, "a platform is left to its station"
    assert found["region"].values == {"west": ""}
    assert "line: 1 values" in run.invoke(app, ["labels", "check", str(file)]).output


def test_the_file_that_comes_with_it_is_right(repository: Path) -> None:
    found = read_file(repository / "ops" / "labels.yaml", Vocabulary)
    assert {"network", "line"} <= {name for name, one in found.labels.items() if one.expected}


def test_a_file_that_turns_wrong_takes_nothing_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.kit.settings.LOOK_S", 0)
    file = tmp_path / "labels.yaml"
    file.write_text("labels: {line: {}}\n")
    watched = Watched(file, Vocabulary)
    file.write_text("labels: {line: [}\n")
    assert set(watched.value.labels) == {"line"}
    file.write_text("labels: {line: {}, stop: {}}\n")
    assert set(watched.value.labels) == {"line", "stop"}


@pytest.mark.parametrize(
    ("text", "then"),
    [
        ("no link", "no link"),
        ("See https://x.example.", "See https://x.example?utm_source=web&utm_medium=social&utm_campaign=autumn%20sale."),
        ("https://x.example/a?b=1&c=%20#top", "https://x.example/a?b=1&c=%20&utm_source=web&utm_medium=social&utm_campaign=autumn%20sale#top"),
        ("https://x.example/?utm_source=mail", "https://x.example/?utm_source=mail&utm_medium=social&utm_campaign=autumn%20sale"),
    ],
)  # fmt: skip
def test_links_are_marked_once(text: str, then: str) -> None:
    utm = Utm(campaign="autumn sale")
    assert marked(text, utm, account="web") == then
    assert marked(then, utm, account="web") == then
    assert marked(text, None, account="web") == text
