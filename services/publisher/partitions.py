"""How many partitions a topic has, asked of the cluster beside each fence."""

from __future__ import annotations

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from schemas.topics import Topic
from services.kit.cluster import Cluster


class Partitions:
    """A client of its own. One that fails is replaced: it may know none but brokers that are gone."""

    def __init__(self, cluster: Cluster, topic: Topic) -> None:
        self.cluster, self.topic = cluster, topic
        self._admin: AIOKafkaAdminClient | None = None

    async def must_be_as_declared(self) -> None:
        """Raise RuntimeError where there are more or fewer; KafkaError where nobody answers."""
        try:
            if self._admin is None:
                self._admin = AIOKafkaAdminClient(**self.cluster.options())
                await self._admin.start()
            found = await self._admin.describe_topics([self.topic.name])
        except (KafkaError, OSError):
            await self.aclose()
            raise
        count = len(found[0]["partitions"])
        if count != self.topic.partitions:
            raise RuntimeError(
                f"{self.topic.name} has {count} partitions and must have {self.topic.partitions}: "
                "offers stop until it has"
            )

    async def aclose(self) -> None:
        """Close the client."""
        admin, self._admin = self._admin, None
        if admin is not None:
            await admin.close()
