"""A client of Interlock's scheduler: campaigns, offers, events. `Interlock`, or `AsyncInterlock` to await.

    with Interlock("http://127.0.0.1:8083", key="ilk_…") as interlock:
        campaign = interlock.add_campaign(name="Autumn", labels={"network": "northlink"})
        interlock.add_posts(campaign["campaign_id"], {"account": "web", "text": "…", "due_at": "…"})

What is refused raises `Refused`, with all that is wrong by JSON pointer. Requests that make something carry
an Idempotency-Key, so that one whose answer was lost is sent again and made once.
"""

from interlock_client._async import AsyncInterlock
from interlock_client._sync import Interlock
from interlock_client.types import (
    Campaign,
    Event,
    NewPost,
    Page,
    Post,
    Refused,
    Suggestion,
    Why,
    Wrong,
)

__all__ = [
    "AsyncInterlock", "Campaign", "Event", "Interlock", "NewPost", "Page", "Post", "Refused",
    "Suggestion", "Why", "Wrong",
]  # fmt: skip
