"""The CloudEvents attributes of an event: their values, the envelope of structured mode, and the time."""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError, from_json, to_json

from events.reasons import ContractViolation, Reason

DEFAULT_SOURCE = "levelsync"
LONGEST = 255
"""Maximum length of an id or a source, in characters. Every history row of an event contains both."""
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
"""The earliest time that an event may have. An earlier time comes from a wrong clock (`bad_time`)."""


class Attributes(NamedTuple):
    """The id, source and time of an event. `source` and `id` together identify it; `time` has a time zone."""

    id: str
    source: str
    time: datetime


def make_attributes(
    id: str | None = None,  # noqa: A002 - CloudEvents' own name
    source: str | None = None,
    time: datetime | None = None,
) -> Attributes:
    """Return the attributes of an event to publish.

    The defaults are a random id, the source "levelsync" and the current time.

    Raises:
        pydantic.ValidationError: The id or source is empty, contains a NUL or has more than 255 characters, or the
            time has no time zone or is before 2000.
    """
    attributes = Attributes(
        str(uuid.uuid4()) if id is None else id,
        DEFAULT_SOURCE if source is None else source,
        datetime.now(UTC) if time is None else time,
    )
    problems = {
        "id": _text_problem(attributes.id),
        "source": _text_problem(attributes.source),
        "time": _time_problem(attributes.time),
    }
    if any(problems.values()):
        raise _validation_error({name: problem for name, problem in problems.items() if problem})
    return attributes


def _text_problem(text: str) -> str:
    if not text or "\0" in text:
        return "must not be empty and must not contain the character NUL"
    if len(text) > LONGEST:
        return f"must not have more than {LONGEST} characters"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "must be text that UTF-8 can encode"
    return ""


def _time_problem(time: datetime) -> str:
    if time.tzinfo is None:
        return "must have a time zone"
    return "must not be before the year 2000" if time < EARLIEST else ""


def _validation_error(problems: dict[str, str]) -> ValidationError:
    """Return pydantic's own error, so that callers catch one class of error for attributes and data."""
    lines = [
        InitErrorDetails(
            type=PydanticCustomError("attribute", "{problem}", {"problem": problem}), loc=(name,), input=None
        )
        for name, problem in problems.items()
    ]
    return ValidationError.from_exception_data("CloudEvents attributes", lines)


_NAMES = ("specversion", "type", "source", "id", "time")


def open_envelope(value: bytes) -> tuple[dict[str, bytes | None], bytes]:
    """Return the attributes of a structured event, with the names and form of binary mode's headers, and its data.

    An attribute that is not text becomes None, like a header with a null value. An attribute that is null in JSON
    counts as absent.

    Raises:
        ContractViolation: `malformed` where the value is not JSON, `invalid` where it is not an envelope.
    """
    envelope = parse(value)
    if not isinstance(envelope, dict):
        raise ContractViolation(Reason.INVALID, "the envelope is not a JSON object")
    found = {f"ce_{name}": _as_header(envelope[name]) for name in _NAMES if envelope.get(name) is not None}
    return found, _data(envelope)


def parse(value: bytes) -> Any:
    """Parse JSON by RFC 8259: UTF-8, without NaN and Infinity.

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
    """Return `data` or the decoded `data_base64`. Without either return JSON's null, which no event accepts as data."""
    encoded = envelope.get("data_base64")
    if encoded is None:
        return to_json(envelope.get("data"))
    if "data" in envelope or not isinstance(encoded, str):
        raise ContractViolation(Reason.INVALID, "data_base64 must be text, and data must be absent beside it")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ContractViolation(Reason.INVALID, "data_base64 is not base64") from None


_AHEAD = timedelta(minutes=5)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIMESTAMP_END = 253_402_300_800_000
"""The year 10000, in milliseconds. Kafka uses -1 for a record without a timestamp."""
# The grammar of RFC 3339, with leap seconds. `datetime.fromisoformat` alone accepts many other forms.
_RFC3339 = re.compile(
    rb"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt](?:[01][0-9]|2[0-3]):[0-5][0-9]:)([0-5][0-9]|60)(?:\.([0-9]+))?"
    rb"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)


def occurred_at(ce_time: bytes | None, timestamp_ms: int) -> datetime:
    """Return the time in `ce_time`, in UTC.

    Raises:
        ContractViolation: `bad_time`. The time cannot be read, is before 2000, or is more than 5 minutes ahead of the
            record's timestamp, where that is usable.
    """
    match = None if ce_time is None else _RFC3339.fullmatch(ce_time)
    if match is None:
        raise ContractViolation(Reason.BAD_TIME, "ce_time is not an RFC 3339 time with an offset")
    # Python cannot represent second 60, so it becomes second 59 plus one.
    second, text = int(match[2] == b"60"), match[0].decode().upper()
    try:
        at = datetime.fromisoformat(text.replace(":60", ":59", second)).astimezone(UTC) + timedelta(seconds=second)
    except (ValueError, OverflowError):  # such as 30 February, or a year outside 1 to 9999 in UTC
        raise ContractViolation(Reason.BAD_TIME, "ce_time is not a valid date") from None
    if at < EARLIEST:
        raise ContractViolation(Reason.BAD_TIME, "ce_time is before the year 2000")
    usable = 0 < timestamp_ms < _TIMESTAMP_END
    if usable and at - _AHEAD > _EPOCH + timedelta(milliseconds=timestamp_ms):
        raise ContractViolation(Reason.BAD_TIME, "ce_time is more than 5 minutes ahead of the record's timestamp")
    return at


def recorded_at(timestamp_ms: int) -> datetime:
    """Return the record's timestamp as a time in UTC, for an event without a time.

    Raises:
        ContractViolation: `bad_time`. The timestamp is not usable.
    """
    if not 0 < timestamp_ms < _TIMESTAMP_END:
        raise ContractViolation(Reason.BAD_TIME, "ce_time is missing, and the record's timestamp is not usable")
    return _EPOCH + timedelta(milliseconds=timestamp_ms)
