"""Pages of lists: opaque cursors for the position after which a page begins, and the header `Link`."""

from __future__ import annotations

import base64
import binascii
import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Query, Request, Response

from events.base import INT8_MAX
from service.admin.identity import Refused

Cursor = Annotated[
    str | None, Query(max_length=500, description="Where the page begins. Copy it from `Link` of the page before.")
]


def encode(position: list[Any]) -> str:
    """Return the cursor of a position."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")


def decode(cursor: str) -> list[Any]:
    """Return the position of a cursor.

    Raises:
        Refused: it is not a cursor of this API.
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
    return Refused("The cursor does not belong to this list. Copy it from the Link header of the page before.")


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


AS_CSV: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}
"""The CSV answer of a list, for the API's document."""
Form = Annotated[
    Literal["json", "csv"] | None,
    Query(alias="format", description="`csv` returns the same page as a sheet, as `Accept: text/csv` does."),
]


class _Page:
    """The requested page of a list."""

    def __init__(self, request: Request, response: Response, limit: int, cursor: str | None, form: str | None) -> None:
        self._request, self._response = request, response
        request.state.as_csv = form == "csv" or (form is None and _prefers_csv(request))
        self.limit = limit
        self.cursor = cursor

    def link_next(self, *position: Any) -> None:
        """Set the header `Link` to the page that begins after this position."""
        query = dict(self._request.query_params) | {"cursor": encode(list(position))}
        self._response.headers["Link"] = f'<{self._request.url.path}?{urlencode(query)}>; rel="next"'


def _prefers_csv(request: Request) -> bool:
    """Return whether the client prefers CSV to JSON. A client that accepts both equally gets JSON."""
    weights = dict(map(_weight, request.headers.get("accept", "").split(",")))
    json_too = max(weights.get(kind, 0) for kind in ("application/json", "application/*", "*/*"))
    return weights.get("text/csv", 0) > json_too


def _weight(part: str) -> tuple[str, float]:
    kind, _, parameters = part.partition(";")
    quality = re.search(r"q=([01](\.\d{0,3})?)", parameters)
    return kind.strip().lower(), float(quality[1]) if quality else 1.0


class Page(_Page):
    """A page of up to 1,000 items, by default 100."""

    def __init__(
        self,
        request: Request,
        response: Response,
        limit: Annotated[int, Query(ge=1, le=1000, description="The most items of the page.")] = 100,
        cursor: Cursor = None,
        form: Form = None,
    ) -> None:
        super().__init__(request, response, limit, cursor, form)


class ShortPage(_Page):
    """A page of up to 100 items, by default 20, for items that take some work each."""

    def __init__(
        self,
        request: Request,
        response: Response,
        limit: Annotated[int, Query(ge=1, le=100, description="The most items of the page.")] = 20,
        cursor: Cursor = None,
        form: Form = None,
    ) -> None:
        super().__init__(request, response, limit, cursor, form)
