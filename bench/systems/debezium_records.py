"""The events in the form that Debezium's sink can write: a flat struct whose fields are the columns of the table."""

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
    """Return a record with its schema, as JsonConverter reads it by default."""
    return _with_value(meant, partition, {"schema": SCHEMA, "payload": _payload(meant)})


def plain(meant: Meant, partition: int) -> ConsumerRecord:
    """Return a record without its schema, which the setting `value.converter.schema.content` contains."""
    return _with_value(meant, partition, _payload(meant))


def _payload(meant: Meant) -> dict[str, object]:
    at = round(meant.at.timestamp() * 1000)
    levels = {"current_level": meant.to_level, "max_achieved_level": meant.to_level}
    times = {"started_at": at, "last_advanced_at": at, "updated_at": at}
    return {"user_id": meant.user, "specialization_type": meant.specialization, **levels, **times}


def _with_value(meant: Meant, partition: int, value: object) -> ConsumerRecord:
    return replace(encode(meant, partition), value=json.dumps(value, separators=(",", ":")).encode())
