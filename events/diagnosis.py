"""Naming what is wrong with a record: slow and precise, only for records that the fast path refused."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any

import pydantic_core
from pydantic import ValidationError

from events.catalogue import BY_TOPIC, BY_TYPE
from events.reasons import ContractViolation, Reason
from events.writing import STRUCTURED_CONTENT_TYPE

Headers = Sequence[tuple[str, bytes | None]]
_ENVELOPE = ("specversion", "id", "source", "type", "time")


def diagnose(topic: str, value: bytes, headers: Headers, error: Exception | str) -> ContractViolation:
    """The first reason that holds: malformed, unknown_type, invalid attributes, bad_time, invalid data."""
    try:
        parse_json(value)
    except ContractViolation as violation:
        return violation
    named = [(name, content) for name, content in headers if name.startswith("ce_")]
    return (
        _wrong_type(topic, dict(named).get("ce_type"))
        or _wrong_attribute(named, error)
        or _wrong_data(error)
        or ContractViolation(Reason.INVALID, f"the record cannot be read: {error}")
    )


def parse_json(value: bytes) -> Any:
    """The JSON of a value.

    Raises:
        ContractViolation: malformed.
    """
    try:
        return pydantic_core.from_json(value, allow_inf_nan=False)
    except ValueError as error:
        raise ContractViolation(Reason.MALFORMED, f"the value is no JSON: {error}") from None


def _wrong_type(topic: str, ce_type: bytes | None) -> ContractViolation | None:
    if ce_type is None:
        return ContractViolation(Reason.UNKNOWN_TYPE, "there is no ce_type")
    name = ce_type.decode("utf-8", "replace")
    if topic not in BY_TOPIC:
        return ContractViolation(Reason.UNKNOWN_TYPE, f"topic {topic} is not of the contract")
    if name not in BY_TYPE:
        return ContractViolation(Reason.UNKNOWN_TYPE, f"ce_type {name[:100]!r} is not known")
    if BY_TYPE[name].TOPIC != topic:
        return ContractViolation(Reason.UNKNOWN_TYPE, f"ce_type {name} belongs on the topic {BY_TYPE[name].TOPIC}")
    return None


def _wrong_attribute(named: Headers, error: Exception | str) -> ContractViolation | None:
    if isinstance(error, str):
        return ContractViolation(Reason.INVALID, error)
    found = dict(named)
    for name in ("ce_specversion", "ce_id", "ce_source"):
        if problem := _attribute_problem(found, name):
            return ContractViolation(Reason.INVALID, problem)
    if found["ce_specversion"] != b"1.0":
        return ContractViolation(Reason.INVALID, f"ce_specversion is {found['ce_specversion']!r}, not 1.0")
    if "ce_time" in found and _attribute_problem(found, "ce_time"):
        return ContractViolation(Reason.BAD_TIME, "ce_time is null or no text")
    return None


def _attribute_problem(found: dict[str, bytes | None], name: str) -> str:
    if name not in found:
        return f"{name} is missing"
    content = found[name]
    if not content:
        return f"{name} is null or empty"
    try:
        return f"{name} holds a NUL character" if "\0" in content.decode() else ""
    except UnicodeDecodeError:
        return f"{name} is not UTF-8"


def _wrong_data(error: Exception | str) -> ContractViolation | None:
    if not isinstance(error, ValidationError):
        return None
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(map(str, first["loc"])) or "data"
    return ContractViolation(Reason.INVALID, f"{field}: {first['msg']}")


def unpack_structured(value: bytes, content_type: bytes) -> tuple[bytes, list[tuple[str, bytes | None]]]:
    """Take an envelope apart into data and the headers of binary mode.

    Raises:
        ContractViolation: malformed, or an envelope that is none (invalid).
    """
    if content_type.partition(b";")[0].strip().lower() != STRUCTURED_CONTENT_TYPE.encode():
        raise ContractViolation(Reason.INVALID, "only application/cloudevents+json is read in structured mode")
    envelope = parse_json(value)
    if not isinstance(envelope, dict):
        raise ContractViolation(Reason.INVALID, "a structured event is a JSON object")
    headers = [(f"ce_{name}", _as_header(name, envelope[name])) for name in _ENVELOPE if name in envelope]
    return _data_of(envelope), headers


def _as_header(name: str, content: object) -> bytes | None:
    """An attribute as its header; what is no text becomes a null header, which is then refused by its name."""
    if not isinstance(content, str):
        return None
    try:
        return content.encode()
    except UnicodeEncodeError:
        raise ContractViolation(Reason.INVALID, f"{name} holds a lone surrogate") from None


def _data_of(envelope: dict[str, Any]) -> bytes:
    if "data_base64" in envelope:
        try:
            return base64.b64decode(envelope["data_base64"], validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise ContractViolation(Reason.INVALID, "data_base64 is no base64") from None
    return json.dumps(envelope.get("data")).encode()
