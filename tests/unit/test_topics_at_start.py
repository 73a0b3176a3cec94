"""Topics as a service finds them when it starts, one of several brokers just lost."""

from __future__ import annotations

from typing import Any

import pytest
from kafka.errors import KafkaError

from schemas.topics import DUE
from services.kit import topics
from services.kit.cluster import Cluster


@pytest.mark.parametrize("failures", [1, topics.TRIES])
async def test_a_broker_that_was_just_lost_ends_no_start_while_others_are_there(
    failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publisher that was killed beside a broker started again and again: each time it asked the one that was gone."""
    monkeypatch.setattr(topics, "TRY_AGAIN_S", 0.0)
    asked: list[Any] = []

    def differences(_: Any, wanted: list[Any]) -> list[str]:
        asked.append(wanted)
        if len(asked) <= failures:
            raise KafkaError("connection refused")
        return []

    monkeypatch.setattr(topics, "topic_differences", differences)
    if failures < topics.TRIES:
        await topics.must_match(Cluster("a:1,b:1"), iter([DUE]))
        assert asked == [[DUE]] * (failures + 1)
    else:
        with pytest.raises(RuntimeError, match="does not answer, or does not let us in"):
            await topics.must_match(Cluster("a:1,b:1"), iter([DUE]))
