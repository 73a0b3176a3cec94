"""What a campaign calls late: made histories, good and bad."""

from __future__ import annotations

import pytest

from ops.demo.judge import Arrival, Disruption
from tests.faults.seen import LEASE_S, History

ACKNOWLEDGED_S, OVER_S = 100.0, 110.0
ARRIVED_S = 109.9  # By a network that had just been slow: it may have begun a little later.
LABELS = {"network": "northlink", "line": "coast"}


@pytest.mark.parametrize(
    ("begun_s", "is_late"),
    [
        (ACKNOWLEDGED_S + LEASE_S / 2, False),
        (ACKNOWLEDGED_S + 2 * LEASE_S, True),
        (OVER_S + 0.1, False),
        (None, True),
    ],
)
def test_late_is_what_began_while_its_disruption_stood(
    begun_s: float | None, is_late: bool
) -> None:
    history = History(
        disruptions=[Disruption("train", LABELS, ACKNOWLEDGED_S, OVER_S)],
        offers={"offer": LABELS},
        arrivals=[Arrival(ARRIVED_S, "offer")],
        outcomes={"offer": "published"},
    )
    if begun_s is not None:
        history.begun_s["offer"] = begun_s
    assert history.sent_late() == (["offer"] if is_late else [])
