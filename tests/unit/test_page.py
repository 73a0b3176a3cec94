"""The public page as values: what touches what, what comes first, what is over."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import yaml
from defusedxml import ElementTree as DefusedXML

from schemas.incidents import Incident
from schemas.labels import parse_matchers
from services.kit.telemetry import Clock
from services.publisher.formats import cap, feeds, gtfs_realtime, statuspage
from services.publisher.page import Incidents, Page, PageSettings, Said, gather, touches
from services.publisher.rendering import Ways, documents, words_of
from services.publisher.site import WORDS, Site
from tests.builders import AT, an_incident

SETTINGS = PageSettings.model_validate(
    {
        "languages": ["en", "fr"],
        "components": [
            {"id": "coast", "name": "Coast", "matchers": '{network="northlink",line="coast"}'},
            {"id": "valley", "name": "Valley", "matchers": '{network="northlink",line="valley"}'},
            {"id": "web", "name": "Tickets", "matchers": '{service="web"}'},
        ],
    }
)


def a_page(*incidents: Incident, posts: tuple[Said, ...] = ()) -> Page:
    return gather(SETTINGS, incidents, posts, url="https://status.example", at=AT)


def one(name: str, **values: Any) -> Incident:
    known = {"incident_id": name, "labels": {"network": "northlink", "line": "coast"}}
    return an_incident(**(known | values))


@pytest.mark.parametrize(
    ("labels", "touched"),
    [
        ({"network": "northlink", "line": "coast"}, ["coast"]),
        ({"line": "coast", "stop": "Saltmouth"}, ["coast"]),
        ({"network": "northlink"}, ["coast", "valley", "web"]),
        ({"network": "other"}, ["web"]),
        ({"network": "northlink", "service": "web"}, ["web"]),
        ({"network": "northlink", "region": "west"}, []),
    ],
)
def test_an_incident_touches_what_it_speaks_of(labels: dict[str, str], touched: list[str]) -> None:
    found = [c.id for c in SETTINGS.components if touches(c.matchers, labels)]
    assert found == touched


def test_the_most_severe_comes_first_and_says_how_things_are() -> None:
    minor, critical = one("a", severity="minor"), one("b", severity="critical")
    page = a_page(minor, critical)
    assert [s.incident.incident_id for s in page.current] == ["b", "a"]
    assert page.indicator == "critical"
    assert page.states == {
        "coast": "major_outage", "valley": "operational", "web": "operational",
    }  # fmt: skip


def test_works_are_not_a_disruption_and_what_is_over_is_history_for_a_while() -> None:
    works = one("w", planned=True)
    over = one("o", status="closed", changed_at=AT - timedelta(days=13))
    long_over = one("l", status="closed", changed_at=AT - timedelta(days=15))
    merged = one("m", merged_into="o")
    page = a_page(works, over, long_over, merged)
    assert (page.current, page.indicator) == ((), "maintenance")
    assert page.states["coast"] == "under_maintenance"
    assert [s.incident.incident_id for s in page.past] == ["o"]


def test_what_was_said_in_another_language_is_better_than_nothing() -> None:
    def said(number: int, language: str) -> Said:
        at = AT + timedelta(minutes=number)
        name = f"{number}"
        return Said(post_id=name, language=language, text=name, at=at, incident_id="a")

    (shown,) = a_page(one("a"), posts=(said(1, "en"), said(2, "en"), said(1, "fr"))).current
    assert [s.text for s in shown.texts("en")] == ["2", "1"]
    assert [s.text for s in shown.texts("de")] == ["2", "1", "1"]


def test_a_text_of_somebody_cannot_become_a_part_of_the_page() -> None:
    words = yaml.safe_load(WORDS.read_text())
    evil = "<script>alert(1)</script>"
    post = Said(post_id=evil, language="en", text=evil, at=AT, incident_id="a")
    made = documents(a_page(one("a", title=evil), posts=(post,)), words, Ways(mail=True))
    assert set(made) == {"/", "/fr/"}
    assert all(body.count(b"<script>") == 1 for body in made.values()), "our own"


@pytest.mark.parametrize("odd", ["\x01", "\x0b", "\x1b", "\x7f", "\x85", "\ufffe", "\uffff"])
def test_what_xml_cannot_carry_keeps_no_document_from_being_made(odd: str) -> None:
    """A line tab, pasted into a title: the page stayed as it had been, while that incident stood."""
    said = f"Buses{odd} leave Saltmouth."
    posts = (Said(post_id="p", language="en", text=said, at=AT, incident_id="a"),)
    labels = {"network": "northlink", "line": f"coast{odd}"}
    page = a_page(one("a", title=f"Trains{odd} are standing", labels=labels), posts=posts)
    found = feeds.documents(page) | cap.documents(page)
    for path, body in found.items():
        if not path.endswith(".ics"):
            DefusedXML.fromstring(body)
    assert b"Trains" in found["/cap/a.xml"]
    assert b"Saltmouth" in found["/feed.atom"]


@pytest.mark.parametrize("end", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_works_whose_end_is_no_time_keep_no_document_from_being_made(end: str) -> None:
    """So do systems write that it is not known."""
    page = a_page(one("a", planned=True, expected_end_at=end))
    words = yaml.safe_load(WORDS.read_text())
    for form in (statuspage, gtfs_realtime, cap, feeds):
        assert form.documents(page)
    assert documents(page, words, Ways())


async def test_a_format_that_cannot_be_made_keeps_no_other_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    incidents: list[Incident] = []

    async def nothing() -> None:
        return

    async def posts() -> list[Said]:
        return []

    site = Site(
        SETTINGS, url="", clock=Clock(), incidents=lambda: incidents, known=nothing, posts=posts, ways=Ways()
    )  # fmt: skip
    await site.render()
    before = site.documents["/history.atom"].plain
    incidents.append(one("a", title="Trains are standing"))

    def fail(_: Page) -> dict[str, bytes]:
        raise ValueError("what nobody foresaw")

    monkeypatch.setattr(feeds, "documents", fail)
    await site.render()
    assert b"Trains are standing" in site.documents["/"].plain
    assert b"Trains are standing" in site.documents["/api/v2/summary.json"].plain
    assert site.documents["/history.atom"].plain == before, "it stays as it was"
    assert site.remarks() == {"page as feeds": "stays as it was: ValueError: what nobody foresaw"}
    monkeypatch.undo()
    await site.render()
    assert not site.remarks()


def test_every_language_of_the_page_has_every_word() -> None:
    words = yaml.safe_load(WORDS.read_text())
    assert all(set(known) == set(words["en"]) for known in words.values())
    assert words_of(words, "it") == words["en"]
    assert words_of(words, "fr-CA")["now"] == words["fr"]["now"]


def test_above_a_thousand_the_oldest_incidents_that_are_over_go() -> None:
    known = Incidents()
    for number in range(1_001):
        status = "resolved" if number < 500 else "investigating"
        known.keep(one(str(number), status=status, changed_at=AT + timedelta(seconds=number)))
    left = {incident.incident_id for incident in known.all()}
    assert len(left) == 901
    assert min(int(name) for name in left) == 100


def test_a_component_named_twice_is_refused() -> None:
    twice = [{"id": "a", "name": "A", "matchers": "{}"}] * 2
    with pytest.raises(ValueError, match="a: there are two of it"):
        PageSettings.model_validate({"components": twice})


def test_a_component_without_matchers_is_touched_by_what_is_about_everything() -> None:
    assert touches(parse_matchers("{}"), {"network": "northlink"})
    assert not touches(parse_matchers("{}"), {"network": "northlink", "line": "coast"})
