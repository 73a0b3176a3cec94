"""The status updates of an evening: which must be said, in which order, and which a network does not take."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from schemas.incidents import StatusUpdate
from schemas.posts import Post

if TYPE_CHECKING:
    from tests.simulation.world import World

PICKY_EVERY: Final = 4  # In so many schedules some texts are answered with an error each time.
REFUSED: Final = 0.3  # So many of them then,
FOR_EVER: Final = 0.5  # and so many of these for ever, the others
UNTIL_S: Final = 30.0  # until then.


class Updates:
    """What the detectors wrote, and what became of it on the networks."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.luck = random.Random(f"updates of {world.seed}")
        # Where two posts fill a queue, two that are refused would let no other in.
        self.is_picky = world.seed % PICKY_EVERY == 0 and not world.is_crowded
        self.places: dict[str, tuple[str, int, int]] = {}  # Incident, number there, offset.
        self.refused_until_s: dict[str, float] = {}
        self.made_s: dict[tuple[str, str], float] = {}  # By account and update, the first time.

    def see(self, update: StatusUpdate, offset: int) -> None:
        """Note an update, as it comes into its topic; a replay says it again."""
        if update.update_id in self.places:
            return
        self.places[update.update_id] = update.incident_id, update.number, offset
        if self.is_picky and self.luck.random() < REFUSED:
            is_for_ever = self.luck.random() < FOR_EVER
            until_s = float("inf") if is_for_ever else UNTIL_S
            self.refused_until_s[update.update_id] = until_s
            self.world.say(f"{update.update_id} will be refused until {until_s} s")

    def refuses(self, post: Post) -> bool:
        """Say whether no network takes it now."""
        return self.world.loop.now_s < self.refused_until_s.get(_update_of(post), 0.0)

    def on_made(self, post: Post, begun_s: float) -> None:
        """Look, when an update stands for the first time, whether a later one stood before it was begun."""
        made = _update_of(post)
        if post.kind != "update" or made not in self.places:
            return
        self.made_s[post.account, made] = self.world.loop.now_s
        for later in self._later(made):
            if self.made_s.get((post.account, later), float("inf")) <= begun_s:
                self.world.fail(f"{post.post_id} goes out behind {later} of its incident")

    def _later(self, update_id: str) -> list[str]:
        """Return those that are later, and stand later: behind a batch that was never written, a replay puts them the other way round."""
        incident, number, offset = self.places[update_id]
        return [
            one
            for one, (its, n, at) in self.places.items()
            if its == incident and n > number and at > offset
        ]

    def unsaid(self) -> list[str]:
        """Return those that neither stand nor are over; what is refused for ever may wait for a later one."""
        return [
            f"{one} on {account}"
            for account in ("social", "plain")
            for one in sorted(self.places)
            if (account, one) not in self.made_s and not self._is_over(account, one)
        ]

    def _is_over(self, account: str, update_id: str) -> bool:
        row = self.world.plant.rows.get(f"{update_id}.{account}.en")
        is_later_out = any((account, later) in self.made_s for later in self._later(update_id))
        if is_later_out:
            return row is not None and row.state in ("failed", "uncertain")
        is_given_up = account == "plain" and row is not None and row.state == "uncertain"
        return is_given_up or self.refused_until_s.get(update_id) == float("inf")


def _update_of(post: Post) -> str:
    return post.post_id.partition(".")[0]
