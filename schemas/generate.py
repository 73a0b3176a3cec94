"""Writes what outsiders read: JSON Schemas of records and the policy, and the AsyncAPI 3.0 document."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from schemas.disruptions import Fence
from schemas.policies import Policy
from schemas.signing import HEADER
from schemas.topics import DISRUPTIONS, TOPICS, Topic

FOLDER = Path(__file__).parent
VERSION = "0.1.0"


def documents() -> dict[Path, str]:
    """Return each generated file with its text."""
    found: dict[Path, str] = {}
    for topic in TOPICS:
        for record in topic.records:
            schema = record.model_json_schema(mode="serialization") | {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "$id": f"urn:interlock:{record.TYPE}",
            }
            found[FOLDER / "json" / f"{record.TYPE}.json"] = _text(schema)
    found[FOLDER / "json" / "policy.json"] = _text(_policy())
    found[FOLDER / "asyncapi.json"] = _text(_asyncapi())
    return found


def write_all() -> list[Path]:
    """Write what is stale and remove what no record has any more; returns the files touched."""
    wanted = documents()
    touched = stale()
    for path in touched:
        if path in wanted:
            path.parent.mkdir(exist_ok=True)
            path.write_text(wanted[path])
        else:
            path.unlink()
    return touched


def stale() -> list[Path]:
    """Return the files that are missing, differ from the models, or belong to no record."""
    wanted = documents()
    there = set((FOLDER / "json").glob("*.json"))
    wrong = [p for p, text in wanted.items() if not p.exists() or p.read_text() != text]
    return [*wrong, *sorted(there - wanted.keys())]


def _policy() -> dict[str, Any]:
    """Return the schema of a policy's file: a language's words may stand in another one."""
    schema = Policy.model_json_schema(mode="validation")
    words = schema["properties"]["messages"]
    for name in ("additionalProperties", "patternProperties"):
        inner = words.get(name)
        if name == "additionalProperties" and isinstance(inner, dict):
            words[name] = {"anyOf": [inner, {"type": "string"}]}
        elif isinstance(inner, dict):
            words[name] = {k: {"anyOf": [v, {"type": "string"}]} for k, v in inner.items()}
    return schema | {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:interlock:policy",
    }


def _asyncapi() -> dict[str, Any]:
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Interlock",
            "version": VERSION,
            "description": "CloudEvents 1.0 in Kafka's binary mode; ops.disruptions also takes structured mode.",
        },
        "channels": {_id(topic): _channel(topic) for topic in TOPICS},
        "operations": dict(_operations()),
        "components": {
            "messages": {
                record.TYPE: {
                    "name": record.TYPE,
                    "contentType": "application/json",
                    "summary": inspect.cleandoc(record.__doc__ or ""),
                    "headers": _headers(record.TYPE, signed=topic is DISRUPTIONS),
                    "payload": {"$ref": f"./json/{record.TYPE}.json"},
                }
                for topic in TOPICS
                for record in topic.records
            }
        },
    }


def _channel(topic: Topic) -> dict[str, Any]:
    return {
        "address": topic.name,
        "description": f"Key: {topic.key}. Written by: {', '.join(topic.writers)}.",
        "messages": {r.TYPE: {"$ref": f"#/components/messages/{r.TYPE}"} for r in topic.records},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "x-configs": topic.config,
            }
        },
    }


def _operations() -> Any:
    for topic in TOPICS:
        for action, names in (("send", topic.writers), ("receive", topic.readers)):
            for name in names:
                yield (
                    f"{name}-{action}-{topic.name}".replace(" ", "-").replace(".", "-"),
                    {"action": action, "channel": {"$ref": f"#/channels/{_id(topic)}"}},
                )


def _headers(record_type: str, *, signed: bool) -> dict[str, Any]:
    names = ("ce_specversion", "ce_type", "ce_source", "ce_id", "ce_time", "traceparent")
    properties: dict[str, Any] = {name: {"type": "string"} for name in names}
    properties["ce_type"]["const"] = record_type
    if signed and record_type != Fence.TYPE:
        why = "where the detectors have signing keys: docs/kafka.md"
        properties[HEADER] = {"type": "string", "description": why}
    return {"type": "object", "properties": properties, "required": list(names[:4])}


def _id(topic: Topic) -> str:
    return topic.name.replace(".", "-")


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
