"""A partition that no fence is written to: offers stop, and say why."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from kafka import KafkaAdminClient

from ops.embedded.system import System
from schemas.topics import DISRUPTIONS
from tests.journey import LEASE_S, Journey, wait_for


def test_another_partition_of_the_log_stops_offers_and_no_service_starts(
    own_system: System,
) -> None:
    with Journey(own_system) as journey:
        wait_for("a fence", lambda: (journey.gate()["fence_age_s"] or 99) < 99)
        admin: Any = KafkaAdminClient(bootstrap_servers=own_system.kafka)
        admin.create_partitions({DISRUPTIONS.name: DISRUPTIONS.partitions + 1})
        admin.close()
        wait_for("fences to fail", lambda: "has 5 partitions and must have 4" in log_of(own_system))
        wait_for("the lease to end", lambda: journey.gate()["fence_age_s"] > 2 * LEASE_S)
        (offer,) = journey.hand_over(1)
        wait_for("the offer to wait", lambda: journey.gate()["waiting_offers"] == 1)
        number = journey.gate()["fence"]
        wait_for("more fences to fail", lambda: log_of(own_system).count("no fence") >= 5)
        assert journey.gate()["fence"] == number
        assert journey.seen(among=[offer]) == []
    command = [sys.executable, "-m", "services.cli", "topics", "check", "--kafka", own_system.kafka]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ops.disruptions has 5 partitions, not 4" in done.stderr


def log_of(system: System) -> str:
    return (system.data / "logs" / "publisher.log").read_text()
