"""The events as Debezium's sink can write them: a flat struct whose fields are the table's columns."""

from __future__ import annotations

import json
from dataclasses import replace

from aiokafka import ConsumerRecord

from bench.load import encode
from tests.support.model import Meant

_TIME = {"type": "int64", "name": "org.apache.kafka.connect.data.Timestamp", "version": 1}
SCHEMA = {
    "type": "struct",
    "optional": False,
    "name": "license",
    "fields": [
        {"field": "user_id", "type": "int32"},
        {"field": "specialization_type", "type": "string"},
        {"field": "current_level", "type": "int32"},
        {"field": "max_achieved_level", "type": "int32"},
        {"field": "started_at", **_TIME},
        {"field": "last_advanced_at", **_TIME},
        {"field": "updated_at", **_TIME},
    ],
}


def with_schema(meant: Meant, partition: int) -> ConsumerRecord:
    """A record as JsonConverter reads it by default: its schema with it."""
    return _with_value(meant, partition, {"schema": SCHEMA, "payload": _payload(meant)})


def plain(meant: Meant, partition: int) -> ConsumerRecord:
    """A record without its schema, which the converter is given once (`value.converter.schema.content`)."""
    return _with_value(meant, partition, _payload(meant))


def _payload(meant: Meant) -> dict[str, object]:
    at = round(meant.at.timestamp() * 1000)
    levels = {"current_level": meant.to_level, "max_achieved_level": meant.to_level}
    times = {"started_at": at, "last_advanced_at": at, "updated_at": at}
    return {"user_id": meant.user, "specialization_type": meant.specialization, **levels, **times}


def _with_value(meant: Meant, partition: int, value: object) -> ConsumerRecord:
    return replace(encode(meant, partition), value=json.dumps(value, separators=(",", ":")).encode())
