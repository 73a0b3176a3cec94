"""HTTP of labels: which there are, what they mean, and which value somebody probably means."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.labels import LabelName
from schemas.vocabulary import Vocabulary, suggestions, unknown
from services.kit.settings import Watched
from services.kit.web import Caller, Problem, require
from services.scheduler import questions
from services.scheduler.campaign_api import READERS

SUGGESTED = 20


class LabelView(BaseModel):
    """A label; `values` counts those that are listed, 0 where it takes any."""

    name: str
    means: str
    expected: bool
    values: int


class Suggestion(BaseModel):
    """A value of a label."""

    value: str
    means: str


def add_routes(router: APIRouter, engine: AsyncEngine, vocabulary: Watched[Vocabulary]) -> None:
    """Add the routes of labels."""

    @router.get("/labels")
    async def list_labels(_: Caller = require(*READERS)) -> list[LabelView]:
        """List the labels that offers may carry."""
        return [
            LabelView(
                name=name, means=known.means, expected=known.expected, values=len(known.values)
            )
            for name, known in vocabulary.value.labels.items()
        ]

    @router.get("/labels/{name}")
    async def suggest_values(
        name: LabelName,
        like: Annotated[str, Query(max_length=100)] = "",
        limit: Annotated[int, Query(ge=1, le=1_000)] = SUGGESTED,
        _: Caller = require(*READERS),
    ) -> list[Suggestion]:
        """Suggest values of a label; where none are listed, those that offers carry."""
        known = vocabulary.value
        if name not in known.labels and known.others == "refuse":
            raise Problem(404, unknown("label", name, known.labels))
        values = known.labels[name].values if name in known.labels else {}
        if not values:
            async with engine.connect() as connection:
                values = dict.fromkeys(await questions.values_of(connection, name), "")
        found = suggestions(values, like, limit=limit)
        return [Suggestion(value=value, means=means) for value, means in found.items()]
