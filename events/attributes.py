"""The CloudEvents attributes of an event, and its envelope."""

from __future__ import annotations

import base64
import binascii
import uuid
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError, from_json, to_json

from events.reasons import ContractViolation, Reason

DEFAULT_SOURCE = "levelsync"
LONGEST = 255
"""Characters of an id or a source: both stand in every row of the history that an event leaves."""
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
"""An event that says it occurred before this has a broken clock (`bad_time`)."""


class Attributes(NamedTuple):
    """`source` and `id` together name one event; `time` is when it occurred, with a zone."""

    id: str
    source: str
    time: datetime


def make_attributes(
    id: str | None = None,  # noqa: A002 - CloudEvents' own name
    source: str | None = None,
    time: datetime | None = None,
) -> Attributes:
    """Attributes for an event to publish: a new random id, this service and now, where none are given.

    Raises:
        pydantic.ValidationError: an empty id or source, a NUL or more than 255 characters in one, or a time
            without a zone or before 2000.
    """
    made = Attributes(
        str(uuid.uuid4()) if id is None else id,
        DEFAULT_SOURCE if source is None else source,
        datetime.now(UTC) if time is None else time,
    )
    problems = {"id": _text_problem(made.id), "source": _text_problem(made.source), "time": _time_problem(made.time)}
    if any(problems.values()):
        raise _refused({name: problem for name, problem in problems.items() if problem})
    return made


def _text_problem(text: str) -> str:
    if not text or "\0" in text:
        return "must not be empty and must not hold the character NUL"
    if len(text) > LONGEST:
        return f"must not have more than {LONGEST} characters"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "must be text that UTF-8 can hold"
    return ""


def _time_problem(time: datetime) -> str:
    if time.tzinfo is None:
        return "must have a zone"
    return "must not be before the year 2000" if time < EARLIEST else ""


def _refused(problems: dict[str, str]) -> ValidationError:
    """As pydantic refuses a field, so that a caller catches one kind of error."""
    lines = [
        InitErrorDetails(
            type=PydanticCustomError("attribute", "{problem}", {"problem": problem}), loc=(name,), input=None
        )
        for name, problem in problems.items()
    ]
    return ValidationError.from_exception_data("CloudEvents attributes", lines)


_NAMES = ("specversion", "type", "source", "id", "time")


def open_envelope(value: bytes) -> tuple[dict[str, bytes | None], bytes]:
    """Take an envelope apart: attributes under the names and in the form of binary mode's headers, and the data.

    An attribute that is not text becomes None, as a header with a null value; one that is JSON's null is absent.

    Raises:
        ContractViolation: `malformed`: the value is not JSON; `invalid`: it is not an envelope.
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
