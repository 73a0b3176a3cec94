"""What an incident holds: one hold for each scope that any of its open reports asks for.

What is new is held before what is gone is released, so that no offer slips through between them. A
hold id is opened once and released once. A hold that a person released stays released for as long
as the incident is open and asks for it.
"""

from __future__ import annotations

from dataclasses import replace

from schemas.holds import HoldOpened, HoldReleased
from schemas.labels import Matcher, format_matchers, parse_matchers
from services.detector.state import Held, Map, Report, Story, Turn

HOLDS = 50  # Of one incident: one that asks for more holds its whole network.
REASON_CHARS = 300
SCOPE_CHANGED = "the incident's scope changed"


def rescope(turn: Turn, story: Story, *, also: tuple[str, ...] = ()) -> Story:
    """Hold what is asked for now; `also` is asked for by a report that is not kept."""
    if not story.open_count:
        return story  # Monitoring: what stands, stands.
    wanted = {*story.asked, *also}
    if story.is_full:
        wanted |= {held.scope for held in story.holds}
    if len(wanted) > HOLDS:
        network = Matcher(name="network", operator="=", value=story.incident.network)
        wanted = {format_matchers((network,))}
    have = {held.scope for held in story.holds}
    new = [_open(turn, story, scope) for scope in sorted(wanted - have)]
    gone = [held for held in story.holds if held.scope not in wanted]
    release(turn, [held for held in gone if held.is_open], reason=SCOPE_CHANGED)
    stays = [held for held in story.holds if held.scope in wanted]
    return with_holds(turn, story, (*stays, *new))


def _open(turn: Turn, story: Story, scope: str) -> Held:
    incident = story.incident
    hold = HoldOpened(
        hold_id=turn.new_id("hold"),
        network=incident.network,
        matchers=parse_matchers(scope),
        reason=incident.title[:REASON_CHARS],
        incident_id=incident.incident_id,
        opened_at=turn.entry.at,
        take_back_s=story.rule.take_back_s,
        author=incident.author,
    )
    turn.say(hold)
    return Held(scope=scope, hold_id=hold.hold_id)


def release(turn: Turn, holds: list[Held], *, reason: str, author: str = "detector") -> None:
    for held in holds:
        turn.say(
            HoldReleased(
                hold_id=held.hold_id,
                released_at=turn.entry.at,
                reason=reason[:REASON_CHARS],
                author=author,
            )
        )


def with_holds(turn: Turn, story: Story, holds: tuple[Held, ...]) -> Story:
    hold_ids = tuple(held.hold_id for held in holds if held.is_open)
    changed = {"hold_ids": hold_ids}
    return replace(story, holds=holds, incident=story.incident.model_copy(update=changed))


def asked_by(asked: Map[str, int], old: Report | None, new: Report | None) -> Map[str, int]:
    """Count what a report asks for now in place of what it asked for before."""
    before = old.scopes if old is not None and old.is_open else ()
    after = new.scopes if new is not None and new.is_open else ()
    if before == after:
        return asked
    for scope in after:
        asked = asked.insert(scope, asked.get(scope, 0) + 1)
    for scope in before:
        left = asked[scope] - 1
        asked = asked.insert(scope, left) if left else asked.remove(scope)
    return asked


def release_hold(turn: Turn, story: Story, hold_id: str, *, reason: str, author: str) -> None:
    """Release one hold of an incident, for a person."""
    gone = [h for h in story.holds if h.hold_id == hold_id and h.is_open]
    release(turn, gone, reason=reason, author=author)
    holds = tuple(replace(h, is_open=h.is_open and h not in gone) for h in story.holds)
    turn.keep(with_holds(turn, story, holds))
