"""The policy: what a disruption holds, what is said, and when. State of the detector's fold."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas.base import Id, Language, Text, Value
from schemas.labels import LabelName, Matchers

Moment = Literal["opened", "working", "resolved"]
MOMENTS: tuple[Moment, ...] = ("opened", "working", "resolved")
Templates = Annotated[dict[Moment, Text], Field(min_length=len(MOMENTS))]


class Rule(Value):
    """What the first rule that matches a disruption does. `hold_by` names labels it holds by."""

    name: Id
    match: Matchers = ()
    hold: Literal["labels", "network", "everything", "nothing"] = "labels"
    hold_by: tuple[LabelName, ...] = ("network", "line")
    say: bool = True
    next_update_s: int = Field(default=1200, ge=1)
    close_after_s: int = Field(default=7200, ge=1)
    take_back_s: int = Field(default=120, ge=0, le=86_400)


class Policy(Value):
    """Rules in order (the first match decides), and the words for each language."""

    version: Literal[1] = 1
    name: Id
    time_zone: str = "UTC"
    rules: tuple[Rule, ...] = Field(min_length=1, max_length=200)
    messages: dict[Language, Templates] = {}
    unreadable_holds: Matchers = ()

    @model_validator(mode="after")
    def _rule_names_are_unique(self) -> Policy:
        names = [rule.name for rule in self.rules]
        if len(set(names)) != len(names):
            raise ValueError("rules: two rules have the same name")
        return self
