"""The golden records of `examples/golden`, as Kafka would deliver them."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "examples" / "golden"


@dataclass(frozen=True)
class Golden:
    """One record and what is expected of it."""

    name: str
    topic: str
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp: int
    expect: dict[str, Any]

    @property
    def is_accepted(self) -> bool:
        """Whether it is an event."""
        return "reason" not in self.expect


def load() -> list[Golden]:
    """Every golden record, named by its file and its own name."""
    files = sorted(FOLDER.glob("*.json"))
    return [_golden(file.stem, record) for file in files for record in json.loads(file.read_text("utf-8"))]


def _golden(file: str, record: dict[str, Any]) -> Golden:
    headers = [(header["name"], _bytes(header)) for header in record["headers"]]
    name = f"{file}: {record['name']}"
    return Golden(name, record["topic"], _bytes(record), headers, record["timestamp"], record["expect"])


def _bytes(holder: dict[str, Any]) -> bytes | None:
    if "value_base64" in holder:
        return base64.b64decode(holder["value_base64"])
    return None if holder["value"] is None else holder["value"].encode()
