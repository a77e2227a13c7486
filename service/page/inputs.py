"""What people type and browsers send, as values; nonsense is said to be that."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID

from events import Direction
from events.fields import INT8_MAX
from service.admin.errors import Refused
from service.admin.identity import user_id_of
from service.admin.runs import FIRST, NEWEST
from service.admin.users import DIRECTIONS


def check_text(given: Mapping[str, str]) -> None:
    """PostgreSQL has no text with a NUL in it.

    Raises:
        Refused: there is one.
    """
    if any("\0" in value for value in given.values()):
        raise Refused("There is no such text.")


def direction_in(given: Mapping[str, str]) -> Direction:
    """The direction; the default where none is named.

    Raises:
        Refused: there is no such direction.
    """
    named = given.get("direction") or "progress_to_license"
    if named not in DIRECTIONS:
        raise Refused(f"There is no such direction; there are {', '.join(DIRECTIONS)}.")
    return named


def user_in(given: Mapping[str, str]) -> int | None:
    """A user's id, where one is given.

    Raises:
        Refused: it is no id.
    """
    said = given.get("user_id", "").strip()
    number = user_id_of(said)
    if said and number is None:
        raise Refused("A user's id is a whole number above 0.")
    return number


def number_in(given: Mapping[str, str], name: str) -> int | None:
    """A whole number, where one is given.

    Raises:
        Refused: it is none.
    """
    said = given.get(name, "").strip()
    if not said:
        return None
    if not (said.isascii() and said.isdigit() and len(said) <= len(str(INT8_MAX))) or int(said) > INT8_MAX:
        raise Refused(f"{name} is a whole number.")
    return int(said)


def run_cursor_in(given: Mapping[str, str]) -> tuple[datetime, UUID]:
    """Behind which run a page begins.

    Raises:
        Refused: nothing that this page made.
    """
    if "before" not in given:
        return NEWEST
    at, _, run_id = given["before"].partition("~")
    try:
        return datetime.fromisoformat(at).astimezone(UTC), UUID(run_id)
    except (ValueError, OverflowError):
        raise Refused("There is no such page of runs.") from None


def issue_cursor_in(given: Mapping[str, str]) -> tuple[int, str]:
    """Behind which issue a page begins.

    Raises:
        Refused: nothing that this page made.
    """
    if "after" not in given:
        return FIRST
    user, _, specialization = given["after"].partition("~")
    number = user_id_of(user.removeprefix("-"))
    if number is None:
        raise Refused("There is no such page of issues.")
    return (-number if user.startswith("-") else number), specialization
