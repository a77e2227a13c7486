"""The CloudEvents attributes of one event that are not its data: who says it, when, under which id."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import NamedTuple

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

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
