"""CloudEvents structured mode: attributes and data from one JSON value."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from pydantic_core import from_json, to_json

from events.reasons import ContractViolation, Reason

_NAMES = ("specversion", "type", "source", "id", "time")


def open_envelope(value: bytes) -> tuple[dict[str, bytes | None], bytes]:
    """Take an envelope apart: attributes under the names and in the form of binary mode's headers, and the data.

    An attribute that is not text becomes None, as a header with a null value; one that is JSON's null is absent.

    Raises:
        ContractViolation: `malformed`: the value is not JSON; `invalid`: it is no envelope.
    """
    envelope = parse(value)
    if not isinstance(envelope, dict):
        raise ContractViolation(Reason.INVALID, "the envelope is not a JSON object")
    found = {f"ce_{name}": _as_header(envelope[name]) for name in _NAMES if envelope.get(name) is not None}
    return found, _data(envelope)


def parse(value: bytes) -> Any:
    """JSON as RFC 8259 has it: no NaN, no Infinity, UTF-8.

    Raises:
        ContractViolation: `malformed`.
    """
    try:
        return from_json(value, allow_inf_nan=False)
    except ValueError as error:
        raise ContractViolation(Reason.MALFORMED, f"the value is not JSON: {error}") from None


def _as_header(attribute: object) -> bytes | None:
    return attribute.encode() if isinstance(attribute, str) else None


def _data(envelope: dict[str, Any]) -> bytes:
    """`data`, or `data_base64`; without either JSON's null, which is the data of no event of ours."""
    encoded = envelope.get("data_base64")
    if encoded is None:
        return to_json(envelope.get("data"))
    if "data" in envelope or not isinstance(encoded, str):
        raise ContractViolation(Reason.INVALID, "data_base64 must be text and stand alone, without data")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ContractViolation(Reason.INVALID, "data_base64 is not base64") from None
