"""Headers of records as levelsync's tables keep them in JSON, and back to the same bytes."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from service.kafka.records import NAME_ERRORS

Header = tuple[str, bytes | None]
Stored = Mapping[str, Any] | Sequence[str]
"""An object as `header_as_json` makes it; or name and text, as events of our own have them in the outbox."""


def header_as_json(name: str, value: bytes | None, encoding: str = "utf-8") -> dict[str, Any]:
    """One header: ``key`` and ``value`` as text, or ``key_base64`` and ``base64`` where `encoding` has no such text."""
    raw = name.encode(errors=NAME_ERRORS)
    key = {"key": name} if _is_text(raw, encoding) else {"key_base64": base64.b64encode(raw).decode()}
    return key | _value_as_json(value, encoding)


def header_from_json(stored: Stored) -> Header:
    """The header that was stored, byte for byte."""
    if not isinstance(stored, Mapping):
        name, value = stored
        return name, value.encode()
    return _name(stored), _value(stored)


def can_be_sent(header: Header) -> bool:
    """Whether a producer can write it: aiokafka, like Kafka's protocol, knows only names in UTF-8."""
    return not any("\udc80" <= char <= "\udcff" for char in header[0])


def _name(stored: Mapping[str, Any]) -> str:
    if "key" in stored:
        return str(stored["key"])
    return base64.b64decode(stored["key_base64"]).decode(errors=NAME_ERRORS)


def _value(stored: Mapping[str, Any]) -> bytes | None:
    if "base64" in stored:
        return base64.b64decode(stored["base64"])
    value = stored.get("value")
    return None if value is None else str(value).encode()


def _value_as_json(value: bytes | None, encoding: str) -> dict[str, str | None]:
    if value is None:
        return {"value": None}
    return {"value": value.decode()} if _is_text(value, encoding) else {"base64": base64.b64encode(value).decode()}


def _is_text(raw: bytes, encoding: str) -> bool:
    """Whether PostgreSQL's JSON can hold it: no NUL."""
    try:
        return "\0" not in raw.decode(encoding)
    except UnicodeDecodeError:
        return False
