"""What the detector may say before what: the two waits that the model asks for, on the real code."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from schemas import envelope
from schemas.base import Record
from schemas.holds import FencePassed, HoldOpened
from schemas.incidents import StatusUpdate
from schemas.topics import key_of
from services.detector.outbox import Outbox
from services.kit import broker as kafka
from services.kit.telemetry import Clock
from tests.builders import AT, an_incident
from tests.unit.test_broker import a_record

ECHO = FencePassed(publisher="p-1", number=1, partition=0)
HOLD = HoldOpened(hold_id="h-1", network="northlink", matchers="{}", reason="test", opened_at=AT)


class Brokers:
    """What was handed over, each to be acknowledged when the test says so."""

    def __init__(self) -> None:
        self.futures: list[asyncio.Future[Any]] = []
        self.values: list[bytes] = []

    async def emit(self, _: Any, __: str, value: bytes, **___: Any) -> asyncio.Future[Any]:
        self.values.append(value)
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]

    async def acknowledge(self, number: int) -> None:
        self.futures[number].set_result(None)
        await asyncio.sleep(0.02)


def an_outbox(monkeypatch: pytest.MonkeyPatch) -> tuple[Outbox, Brokers]:
    brokers: Any = Brokers()
    monkeypatch.setattr(kafka, "emit", brokers.emit)

    def crash(why: str, error: BaseException | None = None) -> None:
        raise AssertionError(why)

    made = Outbox(brokers, clock=Clock(), registry=CollectorRegistry(), crash=crash)
    return made, brokers


async def test_an_echo_waits_for_the_hold_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    outbox, brokers = an_outbox(monkeypatch)
    await outbox.emit(HOLD, "0-1-0")
    outbox.echo(ECHO, "0-2-0")
    await asyncio.sleep(0.02)
    assert len(brokers.futures) == 1, "the echo has overtaken the hold"
    await outbox.emit(HOLD, "0-3-0")  # What comes behind the fence waits for neither.
    await brokers.acknowledge(0)
    assert len(brokers.futures) == 3
    assert [b"hold_id" in value for value in brokers.values] == [True, True, False]


async def test_a_dead_letter_keeps_nobody_waiting_but_an_echo(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outbox, brokers = an_outbox(monkeypatch)
    await outbox.dead_letter(a_record(0, 1), envelope.Unreadable(error="no JSON"))
    outbox.echo(ECHO, "0-2-0")
    await asyncio.sleep(0.02)
    assert (len(brokers.futures), outbox.so_far().done()) == (1, False)
    await brokers.acknowledge(0)
    assert len(brokers.futures) == 2


async def test_a_snapshot_waits_for_echoes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's ECHO_UNSETTLED: an echo behind a snapshot is lost with its process, for 10 s."""
    outbox, brokers = an_outbox(monkeypatch)
    outbox.echo(ECHO, "0-2-0")
    snapshot = outbox.so_far()
    await asyncio.sleep(0.02)
    assert not snapshot.done()
    await brokers.acknowledge(0)
    assert snapshot.done()


async def test_who_waits_and_is_ended_takes_no_output_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At an end the snapshot would have claimed what was not acknowledged."""
    outbox, _ = an_outbox(monkeypatch)
    await outbox.emit(HOLD, "0-1-0")
    waiting = outbox.so_far()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert not outbox.so_far().done()
    await asyncio.sleep(0.02)
    assert not outbox.so_far().done()


LANGUAGES = [f"a{letter}" for letter in "abcdefghijklmnopqrst"]  # As many as an update may have.
LONG = dict.fromkeys(LANGUAGES, "\x01" * 10000)


@pytest.mark.parametrize(
    "output",
    [
        StatusUpdate(
            update_id="u", incident_id="i", network="northlink", number=1, moment="written",
            texts=LONG, written_at=AT,
        ),
        an_incident(details=LONG, titles={"fr": "Rien ne va"}, detail="\x01" * 10_000),
        an_incident(draft={"update_id": "u", "moment": "opened", "texts": LONG, "due_at": AT}),
    ],
)  # fmt: skip
async def test_an_output_that_kafka_would_not_take_is_cut_and_says_so(
    monkeypatch: pytest.MonkeyPatch, output: Record
) -> None:
    """It would end the detector, and each one that begins where it did."""
    outbox, brokers = an_outbox(monkeypatch)
    assert len(envelope.write_value(output)) > 1_048_576
    await outbox.emit(output, "0-1-0")
    (value,) = brokers.values
    assert len(value) < 1_000_000
    found = type(output).model_validate_json(value)
    assert "…" in found.model_dump_json()
    assert key_of(found) == key_of(output)
