"""Event → Kafka record: the CloudEvents Kafka binding, as a publisher uses it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from events.base import Event

SPEC_VERSION = "1.0"
JSON_TYPE = "application/json"
STRUCTURED_TYPE = "application/cloudevents+json"


class KafkaRecord(NamedTuple):
    """What a Kafka producer sends; the names are those of its `send`."""

    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


def binary_record(event: Event) -> KafkaRecord:
    """Data in the value, attributes in the headers."""
    attributes = event.attributes
    headers = [
        ("ce_specversion", SPEC_VERSION.encode()),
        ("ce_id", attributes.id.encode()),
        ("ce_source", attributes.source.encode()),
        ("ce_type", event.TYPE.encode()),
        ("ce_time", write_time(attributes.time).encode()),
        ("content-type", JSON_TYPE.encode()),
    ]
    return KafkaRecord(event.TOPIC, event.key, event.data_json(), headers)


def structured_line(event: Event) -> str:
    """Everything in the value; on Kafka it goes with the header `content-type: application/cloudevents+json`."""
    envelope = {
        "specversion": SPEC_VERSION,
        "id": event.id,
        "source": event.source,
        "type": event.TYPE,
        "time": write_time(event.time),
        "datacontenttype": JSON_TYPE,
        "data": json.loads(event.data_json()),
    }
    return json.dumps(envelope, ensure_ascii=False, separators=(",", ":"))


def write_time(time: datetime) -> str:
    """RFC 3339 in UTC, to the microsecond."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
