"""The records' compatibility, the registry, and what is generated from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from schemas import envelope, generate
from schemas.base import Record
from schemas.disruptions import Disruption
from schemas.topics import TOPICS, key_of, topic_named

SAMPLES = Path(__file__).parents[1] / "samples"
RECORDS = sorted(envelope.TYPES.values(), key=lambda record: record.TYPE)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.TYPE)
def test_a_stored_sample_is_still_read(record: type[Record]) -> None:
    """Readers ignore what they do not know, and what was once written stays readable."""
    sample = (SAMPLES / f"{record.TYPE}.json").read_text()
    found = record.model_validate_json(sample)
    assert record.model_validate_json(found.model_dump_json()) == found
    more = json.dumps(json.loads(sample) | {"a_field_of_tomorrow": {"x": [1]}})
    assert record.model_validate_json(more) == found


def test_a_sample_belongs_to_a_record() -> None:
    assert {p.stem for p in SAMPLES.glob("*.json")} == set(envelope.TYPES)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_every_topic_has_a_writer_and_a_reader(topic: object) -> None:
    found = topic_named(getattr(topic, "name", ""))
    assert found.writers
    assert found.readers
    assert found.partitions > 0


def test_generated_files_are_fresh() -> None:
    assert generate.stale() == []


def test_records_know_their_key() -> None:
    keyless = {
        r.TYPE
        for r in RECORDS
        if key_of(r.model_validate_json((SAMPLES / f"{r.TYPE}.json").read_text())) is None
    }
    assert keyless == {
        "interlock.approve-update.v1",
        "interlock.deadline.v1",
        "interlock.fence.v1",
        "interlock.merge-incidents.v1",
        "interlock.policy-applied.v1",
        "interlock.release-hold.v1",
        "interlock.resolve-incident.v1",
        "interlock.split-incident.v1",
        "interlock.update-incident.v1",
    }


def test_a_nul_in_a_text_is_no_reason_to_refuse_an_event() -> None:
    """And PostgreSQL, which keeps none, is not asked to."""
    given = {"title": "Trains\x00stand", "labels": {"line": "co\x00ast"}}
    found = Disruption.model_validate(
        {"disruption_id": "d", "network": "n", "status": "opened"} | given
    )
    assert (found.title, found.labels) == ("Trains\ufffdstand", {"line": "co\ufffdast"})
