"""Two bare Kafka hops with aiokafka, to compare with: `forward` passes on, `read` notes the time."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

FIRST, SECOND = "bench.first", "bench.second"


async def forward(servers: str) -> None:
    consumer = AIOKafkaConsumer(FIRST, bootstrap_servers=servers, auto_offset_reset="earliest")
    producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all", enable_idempotence=True)
    await consumer.start()
    await producer.start()
    async for record in consumer:
        await producer.send(SECOND, record.value)


async def read(servers: str, count: int) -> dict[str, float]:
    consumer = AIOKafkaConsumer(SECOND, bootstrap_servers=servers, auto_offset_reset="earliest")
    await consumer.start()
    seen: dict[str, float] = {}
    async for record in consumer:
        seen[record.value.decode()] = time.time()
        if len(seen) == count:
            break
    await consumer.stop()
    return seen


if __name__ == "__main__":
    role, kafka, *rest = sys.argv[1:]
    if role == "forward":
        uvloop.run(forward(kafka))
    else:
        Path(rest[0]).write_text(json.dumps(uvloop.run(read(kafka, int(rest[1])))))
