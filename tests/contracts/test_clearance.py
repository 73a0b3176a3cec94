"""Every channel looks at an offer's clearance behind whatever takes its time before the first byte of the post."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from typing import Any

import aiosmtplib
import anyio
import pytest

from ops.embedded.system import System
from services.kit.telemetry import Clock
from services.publisher.channels import bluesky
from services.publisher.clearance import Clearance
from services.publisher.gate import Cleared, TooLate
from tests.builders import a_post
from tests.channels import CHANNELS, Case, a_case

LEASE_S, LONG_S = 0.25, 10.0
# Apprise connects by itself: the look is before that, as docs/channels.md says.
LOOKING = tuple(name for name in CHANNELS if name != "apprise")


class Hand(Clock):
    """A steady clock that goes on when a test says so."""

    now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s


@pytest.fixture
def hand() -> Hand:
    return Hand()


def takes_long(patch: pytest.MonkeyPatch, owner: Any, name: str, hand: Hand) -> None:
    """Let what is awaited take longer than a lease, by the steady clock."""
    known: Callable[..., Any] = getattr(owner, name)

    async def slowly(*given: Any, **values: Any) -> Any:
        found = await known(*given, **values)
        hand.now_s += LONG_S
        return found

    patch.setattr(owner, name, slowly)


@pytest.fixture
def slow_to_connect(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    takes_long(monkeypatch, anyio, "connect_tcp", hand)
    takes_long(monkeypatch, aiosmtplib.SMTP, "rcpt", hand)  # A mail server that thinks.


def offered(name: str, hand: Hand, **values: Any) -> Clearance:
    """Return an offer's clearance for a lease; a page of incidents takes updates only."""
    key = uuid.uuid4().hex
    kind = "update" if name == "statuspage" else "offer"
    post = a_post(post_id=key, text=f"To the sea, {key}", kind=kind)
    return Clearance(
        Cleared(post, until_s=hand.now_s + LEASE_S, fence=1), hand.monotonic_s, **values
    )


async def publish(case: Case, clearance: Clearance) -> None:
    await case.channel.publish(clearance, key=clearance.post.post_id)


@pytest.mark.usefixtures("slow_to_connect")
@pytest.mark.parametrize("name", LOOKING)
async def test_what_runs_out_while_it_connects_is_not_sent(
    name: str, hand: Hand, system: System
) -> None:
    async with a_case(name, system) as case:
        clearance = offered(name, hand)
        with pytest.raises(TooLate):
            await publish(case, clearance)
        assert hand.now_s >= LONG_S, "it has connected"
        assert case.standing(clearance.post.text) == 0


@pytest.mark.usefixtures("slow_to_connect")
@pytest.mark.parametrize("name", LOOKING)
async def test_it_goes_out_on_that_connection_when_the_gate_clears_it_anew(
    name: str, hand: Hand, system: System
) -> None:
    """Or an offer to a network further away than a lease would never go out."""

    async def renew() -> Cleared:
        return Cleared(clearance.post, until_s=math.inf, fence=2)

    async with a_case(name, system) as case:
        clearance = offered(name, hand, renew=renew)
        await publish(case, clearance)
        assert case.standing(clearance.post.text) == 1
        assert clearance.relied_on.fence == 2


async def test_a_session_that_is_renewed_in_between_counts(
    hand: Hand, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bluesky's last two hours: the refused try was looked at, and the next goes out behind two more requests."""
    takes_long(monkeypatch, bluesky.Bluesky, "_refresh", hand)
    async with a_case("bluesky", system) as case:
        await publish(case, offered("bluesky", hand))  # A session is there, a connection is open.
        case.breaks("token expired")
        clearance = offered("bluesky", hand)
        with pytest.raises(TooLate):
            await publish(case, clearance)
        assert hand.now_s == LONG_S
        assert case.standing(clearance.post.text) == 0


@pytest.mark.usefixtures("slow_to_connect")
async def test_an_update_waits_for_nothing_there_either(hand: Hand, system: System) -> None:
    async with a_case("mastodon", system) as case:
        post = a_post(post_id=uuid.uuid4().hex, kind="update", text="Trains stand still.")
        await publish(
            case, Clearance(Cleared(post, until_s=math.inf, fence=None), hand.monotonic_s)
        )
        assert case.standing(post.text) == 1
