"""One body becomes the offers it means, checked against its campaign and its accounts. Pure.

All that is wrong is said at once, each by its JSON pointer; what is only doubtful is a warning.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from schemas.channels import ChannelAccount, objections
from schemas.labels import LABEL_COUNT, Labels
from schemas.posts import Media
from services.scheduler.bodies import Campaign, PostBody
from services.scheduler.recovery import latest_of
from services.scheduler.slots import recurring

Problem = dict[str, str]
MOST_PROBLEMS: Final = 100


@dataclass(slots=True)
class Checked:
    """The offers of some bodies, and what is wrong with them."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def wrong(self, pointer: str, detail: str) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append({"pointer": f"/{pointer}", "detail": detail})


# The accounts by name; with none known yet nothing is said of accounts.
Accounts = Mapping[str, ChannelAccount]


def check(
    bodies: Iterable[PostBody], campaign: Campaign, known: Accounts, *, free: Iterator[datetime]
) -> Checked:
    """Return the offers that these bodies mean; `free` gives the campaign's next free slots."""
    done = Checked()
    for number, body in enumerate(bodies):
        labels = {**campaign.labels, **body.labels}
        if len(labels) > LABEL_COUNT:
            done.wrong(f"{number}/labels", f"more than {LABEL_COUNT} with the campaign's")
        accounts = _accounts(done, number, body, campaign, known)
        times = _times(done, number, body, campaign, free)
        many = len(times) * len(accounts) > 1
        for at in times:
            latest_at = latest_of(at, body.latest_at, useful_s=campaign.useful_s)
            if latest_at <= at:
                done.wrong(f"{number}/latest_at", "must be later than due_at")
            for account in accounts:
                done.rows.append(_row(body, account, at, latest_at, labels, many=many))
    return done


def _accounts(
    done: Checked, number: int, body: PostBody, campaign: Campaign, known: Accounts
) -> tuple[str, ...]:
    accounts = body.on(tuple(campaign.accounts))
    if not accounts:
        done.wrong(f"{number}/account", "neither this nor the campaign names an account")
    for account in accounts:
        _check_account(done, number, body, account, known)
    for name in set(body.variants) - set(accounts):
        done.wrong(f"{number}/variants/{name}", "is none of this offer's accounts")
    return accounts


def _times(
    done: Checked, number: int, body: PostBody, campaign: Campaign, free: Iterator[datetime]
) -> list[datetime]:
    if body.slot is not None:
        at = next(free, None)
        if at is None:
            done.wrong(f"{number}/slot", "no slot is free before the campaign ends")
        return [] if at is None else [at]
    assert body.due_at is not None, "either it, or slot"
    times = [body.due_at]
    if body.recurring is not None:
        try:
            times = recurring(body.recurring, first=body.due_at, frame=campaign.frame)
        except ValueError as error:
            done.wrong(f"{number}/recurring", str(error))
    for at in times:
        if why := campaign.frame.objection(at):
            done.wrong(f"{number}/due_at", why)
            break
    return times


def _check_account(
    done: Checked, number: int, body: PostBody, account: str, known: Accounts
) -> None:
    if not known:
        return
    found = known.get(account)
    if found is None:
        done.wrong(f"{number}/account", unknown("account", account, known))
        return
    text = body.variants.get(account, body.text)
    where = f"variants/{account}" if account in body.variants else "text"
    for name, why in objections(found, text, body.media).items():
        done.wrong(f"{number}/{where if name == 'text' else name}", why)


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Say that there is none of this name, and which was probably meant."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"there is no {what} {name}" + (
        f": did you mean {near[0]}?" if near else f": {', '.join(names)}"
    )


def _row(
    body: PostBody, account: str, at: datetime, latest_at: datetime, labels: Labels, *, many: bool
) -> dict[str, Any]:
    external = body.external_id
    if external is not None and many:
        external = f"{external}/{account}/{at.isoformat()}"
    return {
        "account": account,
        "text": body.variants.get(account, body.text),
        "language": body.language,
        "labels": labels,
        "due_at": at,
        "latest_at": latest_at,
        "media": as_json(body.media),
        "card": body.card.model_dump(mode="json") if body.card else None,
        "external_id": external,
    }


def as_json(media: Iterable[Media]) -> list[dict[str, str]]:
    """Return pictures as the queue keeps them."""
    return [one.model_dump(mode="json") for one in media]
