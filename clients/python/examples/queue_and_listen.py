"""Queues an offer and waits for what becomes of it: `python queue_and_listen.py ACCOUNT TEXT`.

INTERLOCK_SCHEDULER is the scheduler's address, INTERLOCK_KEY a key of marketing.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime

from interlock_client import Interlock, Refused


def main(account: str, text: str) -> None:
    """Queue it, and print events until it has ended."""
    url, key = os.environ["INTERLOCK_SCHEDULER"], os.environ["INTERLOCK_KEY"]
    with Interlock(url, key=key) as interlock:
        campaign = interlock.add_campaign(name="An example")
        now = datetime.now(UTC).isoformat()
        try:
            (post,) = interlock.add_posts(
                campaign["campaign_id"], {"account": account, "text": text, "due_at": now}
            )
        except Refused as error:
            for one in error.wrong:
                print(f"{one['pointer']}: {one['detail']}")
            sys.exit(1)
        for warning in post.get("warnings", []):
            print(f"but: {warning}")
        for event in interlock.events(after="0-0"):
            if event["data"].get("post_id") == post["post_id"]:
                print(event["type"], event["data"]["url"] or "")
                break
        print(interlock.why(post["post_id"])["answer"])


if __name__ == "__main__":
    main(*sys.argv[1:3])
