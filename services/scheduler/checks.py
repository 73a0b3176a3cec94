"""One body becomes the offers it means, checked against its campaign and its accounts. Pure.

All that is wrong is said at once, each by its JSON pointer; what is only doubtful is a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from pydantic_core import to_json

from schemas.channels import ChannelAccount, objections
from schemas.labels import LABEL_COUNT, Labels
from schemas.posts import Media, is_address
from schemas.vocabulary import Vocabulary, unknown
from services.scheduler.bodies import Campaign, PostBody
from services.scheduler.links import marked
from services.scheduler.recovery import latest_of
from services.scheduler.slots import recurring

Problem = dict[str, str]
MOST_PROBLEMS: Final = 100
THREAD_BYTES: Final = 800_000
OWN: Final = {"text": "variants", "thread": "threads"}  # What an account may have of its own.


@dataclass(slots=True)
class Checked:
    """The offers of some bodies, and what is wrong with them."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def wrong(self, pointer: str, detail: str) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append({"pointer": f"/{pointer}", "detail": detail})


@dataclass(frozen=True, slots=True)
class Known:
    """What offers are checked against; with no account known yet nothing is said of accounts."""

    accounts: Mapping[str, ChannelAccount]
    vocabulary: Vocabulary


def check(
    bodies: Iterable[PostBody], campaign: Campaign, known: Known, *, free: Iterator[datetime]
) -> Checked:
    """Return the offers that these bodies mean; `free` gives the campaign's next free slots."""
    done = Checked()
    for number, body in enumerate(bodies):
        labels = {**campaign.labels, **body.labels}
        if len(labels) > LABEL_COUNT:
            done.wrong(f"{number}/labels", f"more than {LABEL_COUNT} with the campaign's")
        for name, why in known.vocabulary.objections(labels).items():
            done.wrong(f"{number}/labels/{name}", why)
        for where in _no_addresses(body):
            done.wrong(f"{number}/{where}", "is no address that can be")
        texts = _texts(done, number, body, campaign, known.accounts)
        times = _times(done, number, body, campaign, free)
        many = len(times) * len(texts) > 1
        for at in times:
            latest_at = latest_of(at, body.latest_at, useful_s=campaign.useful_s)
            if latest_at <= at:
                done.wrong(f"{number}/latest_at", "must be later than due_at")
            for account, (text, *thread) in texts.items():
                row = _row(body, account, at, latest_at, labels, many=many)
                done.rows.append(row | {"text": text, "thread": thread})
    return done


def _no_addresses(body: PostBody) -> Iterator[str]:
    """Yield where something is named that can be asked nowhere."""
    for number, one in enumerate(body.media):
        if not is_address(one.url):
            yield f"media/{number}/url"
    if body.card is not None and not is_address(body.card.url):
        yield "card/url"


def _texts(
    done: Checked,
    number: int,
    body: PostBody,
    campaign: Campaign,
    known: Mapping[str, ChannelAccount],
) -> dict[str, list[str]]:
    """Return the parts for each account, with the campaign's marks on their links."""
    accounts = body.on(tuple(campaign.accounts))
    if not accounts:
        done.wrong(f"{number}/account", "neither this nor the campaign names an account")
    for own in OWN.values():
        for name in sorted(getattr(body, own).keys() - set(accounts)):
            done.wrong(f"{number}/{own}/{name}", "is none of this offer's accounts")
    texts = {
        account: [marked(text, campaign.utm, account=account) for text in _parts(body, account)]
        for account in accounts
    }
    if any(_is_too_large(parts) for parts in texts.values()):
        done.wrong(f"{number}/thread", f"has more than {THREAD_BYTES:,} bytes as JSON")
    for account, parts in texts.items() if known else ():
        for where, why in _objections(body, account, parts, known):
            done.wrong(f"{number}/{where}", why)
    return texts


def _is_too_large(parts: list[str]) -> bool:
    """Say whether Kafka, which takes a megabyte with all else in it, would refuse a thread."""
    return len(parts) > 1 and sum(len(to_json(part)) for part in parts) > THREAD_BYTES


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


def _objections(
    body: PostBody, account: str, parts: list[str], known: Mapping[str, ChannelAccount]
) -> Iterator[tuple[str, str]]:
    found = known.get(account)
    if found is None:
        yield "account", unknown("account", account, known)
        return
    for where, why in objections(found, parts, body.media).items():
        name, *part = where.split("/")
        is_own = name in OWN and account in getattr(body, OWN[name])
        yield "/".join((OWN[name], account, *part)) if is_own else where, why


def _parts(body: PostBody, account: str) -> tuple[str, ...]:
    """Return the words for an account, its own where there are any."""
    text = body.variants.get(account, body.text)
    return (text, *body.threads.get(account, body.thread))


def _row(
    body: PostBody, account: str, at: datetime, latest_at: datetime, labels: Labels, *, many: bool
) -> dict[str, Any]:
    external = body.external_id
    if external is not None and many:
        external = f"{external}/{account}/{at.isoformat()}"
    return {
        "account": account,
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
