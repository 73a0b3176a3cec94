"""Prints how many offers each campaign has that are held now, asked side by side: `python held_now.py`."""

from __future__ import annotations

import asyncio
import os

from interlock_client import AsyncInterlock


async def main() -> None:
    """Ask for each campaign's held offers at once."""
    url, key = os.environ["INTERLOCK_SCHEDULER"], os.environ["INTERLOCK_KEY"]
    async with AsyncInterlock(url, key=key) as interlock:

        async def count(campaign_id: str) -> int:
            return len([1 async for _ in interlock.posts(state="held", campaign_id=campaign_id)])

        campaigns = await interlock.campaigns()
        held = await asyncio.gather(*(count(one["campaign_id"]) for one in campaigns))
        for campaign, number in zip(campaigns, held, strict=True):
            print(f"{campaign['name']}: {number}")


if __name__ == "__main__":
    asyncio.run(main())
