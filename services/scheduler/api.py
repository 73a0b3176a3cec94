"""HTTP for marketing: campaigns, offers, approval, questions. Every change names its author in the audit."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter

from schemas.channels import ChannelAccount
from schemas.vocabulary import Vocabulary
from services.kit.settings import Watched
from services.scheduler import (
    calendar_api,
    campaign_api,
    event_api,
    file_api,
    label_api,
    post_api,
    question_api,
)
from services.scheduler.lane_store import LaneStore
from services.scheduler.post_api import AskBack
from services.scheduler.post_desk import PostDesk


def new_router(
    lanes: LaneStore,
    accounts: Mapping[str, ChannelAccount],
    vocabulary: Watched[Vocabulary],
    *,
    ask_back: AskBack,
) -> APIRouter:
    """Return the scheduler's routes."""
    router = APIRouter(prefix="/v1")
    campaign_api.add_routes(router, lanes.engine)
    post_desk = PostDesk(lanes, accounts, vocabulary)
    post_api.add_routes(router, post_desk, ask_back)
    file_api.add_routes(router, post_desk)
    question_api.add_routes(router, post_desk)
    calendar_api.add_routes(router, post_desk)
    event_api.add_routes(router, lanes.engine)
    label_api.add_routes(router, lanes.engine, vocabulary)
    return router
