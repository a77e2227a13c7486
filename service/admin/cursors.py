"""Cursors of lists: the position after which a page begins, as an opaque text in an address."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from events.base import INT8_MAX
from service.admin.identity import Refused


def encode(*position: Any) -> str:
    """Return the cursor of a position."""
    return base64.urlsafe_b64encode(json.dumps(position, default=_as_text).encode()).decode().rstrip("=")


def _as_text(part: Any) -> str:
    return part.isoformat() if isinstance(part, datetime) else str(part)


def decode(cursor: str) -> list[Any]:
    """Return the position of a cursor.

    Raises:
        Refused: it is not a cursor.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        position = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        json.dumps(position, ensure_ascii=False).encode()  # PostgreSQL stores no lone surrogate
    except (binascii.Error, ValueError, RecursionError):
        raise not_a_cursor() from None
    if not isinstance(position, list) or any(isinstance(part, bool) for part in position):  # a bool is also an int
        raise not_a_cursor()
    return position


def pair_of(cursor: str) -> tuple[int, str]:
    """Return the position of a cursor over pairs.

    Raises:
        Refused: it is not such a cursor.
    """
    match decode(cursor):
        case [int(user), str(specialization)] if abs(user) <= INT8_MAX and "\0" not in specialization:
            return user, specialization
        case _:
            raise not_a_cursor()


def run_of(cursor: str) -> tuple[datetime, UUID]:
    """Return the position of a cursor over runs.

    Raises:
        Refused: it is not such a cursor.
    """
    try:
        at, run_id = decode(cursor)
        return datetime.fromisoformat(at).astimezone(UTC), UUID(run_id)
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise not_a_cursor() from None


def not_a_cursor() -> Refused:
    """Return the answer to a cursor that this list does not have."""
    return Refused("The cursor does not belong to this list. Use the cursor of the previous page.")


def place_of(cursor: str) -> tuple[str, int, str]:
    """Return the position of a cursor over a run's issues.

    Raises:
        Refused: it is not such a cursor.
    """
    match decode(cursor):
        case [str(place), int(user), str(specialization)] if (
            abs(user) <= INT8_MAX and "\0" not in place + specialization
        ):
            return place, user, specialization
        case _:
            raise not_a_cursor()


def action_of(cursor: str) -> tuple[datetime, int]:
    """Return the position of a cursor over the audit log.

    Raises:
        Refused: it is not such a cursor.
    """
    try:
        at, number = decode(cursor)
        when = datetime.fromisoformat(at).astimezone(UTC)
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise not_a_cursor() from None
    if not isinstance(number, int) or abs(number) > INT8_MAX:
        raise not_a_cursor()
    return when, number
