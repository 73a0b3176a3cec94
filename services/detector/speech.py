"""When an incident speaks: at once, later, after a person's approval, or not at all.

- The first update comes with the first record; then again when there is news, and at the time that
  the last one named, even if there is none.
- Two automatic updates of an incident are at least `update_gap_s` apart, unless it got worse.
- While an incident is only watched (`monitoring`, all its reports are over) it speaks if the policy
  has words for that.
- In a muted window it waits for the window's end; under an inhibition it waits and looks again.
- Where the policy asks for approval the words wait as a draft, and go out or not when their time
  is over. What a person writes goes out at once, replaces a draft, and restarts the clock.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from schemas.base import SEVERITIES
from schemas.disruptions import Texts
from schemas.incidents import Draft, StatusUpdate, Variant
from schemas.labels import matches
from schemas.policies import Moment, Policy
from services.detector import messages
from services.detector.state import State, Story, Turn, values_of
from services.detector.windows import end_of


def say(turn: Turn, story: Story) -> Story:
    """Say what now stands, or see to it that it is said later."""
    at, policy = turn.entry.at, turn.state.policy
    if story.incident.is_open and not story.open_count and not _speaks_of_monitoring(policy):
        return _later(story, at)
    moment = moment_of(story)
    if moment is None or not story.rule.say or policy is None:
        return _quietly(story)
    when = _when(turn.state, story, at)
    if when > at:
        return _with(story, next_update_at=when)
    next_at = None
    if moment != "resolved":
        next_at = at + timedelta(seconds=story.rule.next_update_s)
    incident = story.incident.model_copy(update={"next_update_at": next_at})
    said = messages.write(policy, moment, incident, at=at)
    if not said.texts:
        return _quietly(story)
    story = replace(story, incident=incident)
    approval = story.rule.approval
    if approval is None:
        return _send(turn, story, moment, said.texts, said.variants)
    waits = story.incident.draft
    draft = Draft(
        update_id=turn.new_id("upd"),
        moment=moment,
        texts=said.texts,
        variants=said.variants,
        # New words do not get new time: what was to be said first must not be put off for ever.
        due_at=waits.due_at if waits else at + timedelta(seconds=approval.within_s),
    )
    return _with(replace(story, said=moment), draft=draft)


def moment_of(story: Story) -> Moment | None:
    """Return what there is to say. Who was told nothing is not told that it is over."""
    spoke = story.incident.update_count > 0
    if not story.incident.is_open:
        return "resolved" if spoke and story.said != "resolved" else None
    if not story.open_count:
        return "monitoring" if spoke else None
    return "opened" if story.said in (None, "resolved") else "working"


def send_draft(turn: Turn, story: Story, *, texts: Texts | None, author: str) -> Story:
    """Let a draft go out; a person's words replace the draft's in every variant."""
    draft = story.incident.draft
    assert draft is not None
    variants = draft.variants if texts is None else ()
    return _send(
        turn, story, draft.moment, texts or draft.texts, variants,
        author=author, update_id=draft.update_id,
    )  # fmt: skip


def drop_draft(story: Story) -> Story:
    return _with(story, draft=None)


def send_written(
    turn: Turn, story: Story, texts: Texts, *, next_at: datetime | None, author: str
) -> Story:
    """Send what a person wrote; it replaces a draft and restarts the clock."""
    incident = story.incident.model_copy(update={"next_update_at": next_at})
    story = replace(story, incident=incident)
    story = _emit(turn, story, "written", texts, (), author=author, update_id=turn.new_id("upd"))
    return replace(story, said=story.said or "opened")


def _send(
    turn: Turn,
    story: Story,
    moment: Moment,
    texts: Texts,
    variants: tuple[Variant, ...],
    *,
    author: str = "detector",
    update_id: str = "",
) -> Story:
    update_id = update_id or turn.new_id("upd")
    story = _emit(turn, story, moment, texts, variants, author=author, update_id=update_id)
    return replace(
        story,
        said=moment,
        said_at=turn.entry.at,
        said_severity=SEVERITIES.index(story.incident.severity),
    )


def _emit(
    turn: Turn,
    story: Story,
    moment: Moment | str,
    texts: Texts,
    variants: tuple[Variant, ...],
    *,
    author: str,
    update_id: str,
) -> Story:
    incident = story.incident.model_copy(
        update={
            "update_count": story.incident.update_count + 1,
            "draft": None,
        }
    )
    update = StatusUpdate.model_validate(
        {
            "update_id": update_id,
            "incident_id": incident.incident_id,
            "network": incident.network,
            "number": incident.update_count,
            "moment": moment,
            "texts": texts,
            "variants": variants,
            "labels": incident.labels,
            "severity": incident.severity,
            "written_at": turn.entry.at,
            "next_update_at": incident.next_update_at,
            "author": author,
        }
    )
    turn.say(update)
    return replace(story, incident=incident)


def _when(state: State, story: Story, at: datetime) -> datetime:
    worse = SEVERITIES.index(story.incident.severity) > story.said_severity
    when = at
    if story.said_at is not None and not worse:
        when = max(when, story.said_at + timedelta(seconds=story.rule.update_gap_s))
    if _inhibited(state, story):
        when = max(when, at + timedelta(seconds=story.rule.next_update_s))
    if story.rule.mute and state.policy is not None:
        known = tuple(name for name in story.rule.mute if name in state.policy.windows)
        when = end_of(state.policy, known, when)
    return when


def _inhibited(state: State, story: Story) -> bool:
    if state.policy is None:
        return False
    mine = _labels(story)
    for rule in state.policy.inhibitions:
        if not matches(rule.over, mine):
            continue
        for other in values_of(state.stories):
            theirs = _labels(other)
            if (
                other.incident.is_open
                and other.incident.incident_id != story.incident.incident_id
                and matches(rule.by, theirs)
                and all(mine.get(name, "") == theirs.get(name, "") for name in rule.equal)
            ):
                return True
    return False


def _labels(story: Story) -> dict[str, str]:
    return {**story.incident.labels, "severity": story.incident.severity}


def _speaks_of_monitoring(policy: Policy | None) -> bool:
    words = policy.messages.values() if policy else ()
    return any(one.monitoring is not None for one in words)


def _later(story: Story, at: datetime) -> Story:
    return _with(story, next_update_at=at + timedelta(seconds=story.rule.next_update_s))


def _quietly(story: Story) -> Story:
    return _with(story, next_update_at=None, draft=None)


def _with(story: Story, **changed: object) -> Story:
    return replace(story, incident=story.incident.model_copy(update=changed))
