"""The vocabulary of labels: which names and values there are, so that a typo is a mistake and not a leak.

An offer with `line="caost"` is covered by no hold over the line `coast`. With the values of `line` known, such
an offer is refused while it is written, and a policy that names such a line is refused as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints
from rapidfuzz import process

from schemas.base import Value
from schemas.labels import LabelName, Labels, LabelValue

VALUES_MOST = 200_000
ALIKE = 70  # Of 100, by rapidfuzz's weighted ratio: what is less alike is no typo.
SUGGESTED = 50

Meaning = Annotated[str, StringConstraints(max_length=300)]


def _as_meanings(given: Any) -> Any:
    """Read a list of values as values without a meaning."""
    return dict.fromkeys(given, "") if isinstance(given, list | tuple) else given


class KnownLabel(Value):
    """One name. Without `values` it takes any; `expected` says that an offer without it is in doubt."""

    model_config = ConfigDict(extra="forbid")

    means: Meaning = ""
    expected: bool = False
    values: Annotated[dict[LabelValue, Meaning], BeforeValidator(_as_meanings)] = Field(
        default={}, max_length=VALUES_MOST
    )


class Vocabulary(Value):
    """The labels of a company. `others` says what becomes of names that are not listed."""

    model_config = ConfigDict(extra="forbid")

    labels: dict[LabelName, KnownLabel] = {}
    others: Literal["warn", "refuse"] = "warn"

    def objection(self, name: str, value: str) -> str:
        """Say what is wrong with a label; empty: nothing is."""
        known = self.labels.get(name)
        if known is None:
            return unknown("label", name, self.labels) if self.others == "refuse" else ""
        if known.values and value not in known.values:
            return unknown(name, value, known.values)
        return ""

    def objections(self, labels: Labels) -> dict[str, str]:
        """Return what is wrong with labels, by their names."""
        found = {name: self.objection(name, value) for name, value in labels.items()}
        return {name: why for name, why in found.items() if why}

    def doubts(self, labels: Labels) -> list[str]:
        """Return what is doubtful of an offer's labels, in words."""
        missing = [
            f"without a `{name}` label this offer is held by every incident on any {name}"
            for name, known in self.labels.items()
            if known.expected and name not in labels
        ]
        strange = [
            unknown("label", name, self.labels)
            for name in labels
            if self.labels and name not in self.labels
        ]
        return missing + (strange if self.others == "warn" else [])


def unknown(what: str, name: str, known: Iterable[str], *, shown: int = 10) -> str:
    """Say that there is none of this name, and which was probably meant."""
    names = list(known)
    near = process.extractOne(name, names, score_cutoff=ALIKE)
    if near is not None:
        return f"there is no {what} {name}: did you mean {near[0]}?"
    few = ", ".join(sorted(names)[:shown]) + (" and more" if len(names) > shown else "")
    return f"there is no {what} {name}" + (f": there are {few}" if few else "")


def suggestions(known: Mapping[str, str], like: str, *, limit: int) -> dict[str, str]:
    """Return values whose name or meaning is like a text, the nearest first; all for no text."""
    if not like:
        return dict(list(known.items())[:limit])
    texts = {value: f"{value} {means}" for value, means in known.items()}
    found = process.extract(
        like, texts, limit=limit, score_cutoff=SUGGESTED, processor=str.casefold
    )
    return {value: known[value] for _, _, value in found}
