"""Holds of no incident: by hand, and as a precaution where events could not be read.

What cannot be read may be the disruption: it holds. Records that are gone before they were read
hold everything. A source that is not read any more holds what the policy says, until it is.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from schemas.disruptions import Deadline, SourceRead
from schemas.envelope import Unreadable
from schemas.holds import HoldOpened, HoldReleased
from schemas.labels import Matcher
from services.detector.policy import stale_rule
from services.detector.state import Source, Turn, items_of, source_key, values_of

REASON_CHARS = 300
UNREADABLE = "unreadable event"


def hold(
    turn: Turn,
    reason: str,
    *,
    matchers: tuple[Matcher, ...],
    network: str = "*",
    author: str = "detector",
    take_back_s: int = 0,
) -> str:
    opened = HoldOpened(
        hold_id=turn.new_id("hold"),
        network=network,
        matchers=matchers,
        reason=reason,
        opened_at=turn.entry.at,
        take_back_s=take_back_s,
        author=author,
    )
    turn.change(other_holds=turn.state.other_holds.insert(opened.hold_id, opened))
    turn.say(opened)
    return opened.hold_id


def release(turn: Turn, hold_id: str, *, reason: str, author: str) -> None:
    turn.change(other_holds=turn.state.other_holds.remove(hold_id))
    at = turn.entry.at
    turn.say(HoldReleased(hold_id=hold_id, released_at=at, reason=reason, author=author))


def on_unreadable(turn: Turn, body: Unreadable) -> None:
    policy = turn.state.policy
    matchers = policy.unreadable_holds if policy else ()
    for known in values_of(turn.state.other_holds):
        if known.reason.startswith(UNREADABLE) and known.matchers == matchers:
            return  # One is enough: a flood of them must not become a flood of holds.
    hold(turn, f"{UNREADABLE}: {body.error}"[:REASON_CHARS], matchers=matchers)


def on_source_read(turn: Turn, read: SourceRead) -> None:
    """Note that a source was read, or that it is expected to be; a stale one holds no more."""
    key = source_key(read.network, read.source)
    before = turn.state.sources.get(key)
    if read.is_only_expected and before is not None:
        return
    if before is not None and before.hold_id in turn.state.other_holds:
        release(turn, before.hold_id, reason="the source is read again", author="detector")
    _keep(turn, key, Source(read_at=turn.entry.at))


def on_policy(turn: Turn) -> None:
    """Judge the silence of each source anew; one that holds goes on until it is read."""
    for key, source in items_of(turn.state.sources):
        if not source.hold_id:
            _keep(turn, key, source)


def _keep(turn: Turn, key: str, source: Source) -> None:
    rule = stale_rule(turn.state.policy, key.partition("\n")[2])
    stale_at = source.read_at + timedelta(seconds=rule.after_s) if rule else None
    source = replace(source, stale_at=stale_at)
    turn.change(sources=turn.state.sources.insert(key, source))


def on_stale(turn: Turn, deadline: Deadline) -> None:
    source = turn.state.sources.get(deadline.subject)
    if source is None or source.stale_at != deadline.due_at:
        return
    network, _, name = deadline.subject.partition("\n")
    rule = stale_rule(turn.state.policy, name)
    hold_id = ""
    if rule is not None:
        reason = f"the source {name} was not read since {source.read_at:%Y-%m-%d %H:%M} UTC"
        hold_id = hold(turn, reason[:REASON_CHARS], matchers=rule.hold, network=network)
    stale = replace(source, stale_at=None, hold_id=hold_id)
    turn.change(sources=turn.state.sources.insert(deadline.subject, stale))
