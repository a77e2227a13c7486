"""One request of the page: its parameters, its identity and its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, get_args
from urllib.parse import urlencode
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from events import Direction
from events.base import INT8_MAX
from service.admin import sessions
from service.admin.audit import NEWEST_ACTION, ActionCursor, check, refuse, storable_fields
from service.admin.cursors import action_of, place_of, run_of
from service.admin.database import check_alive, within
from service.admin.identity import Action, Forbidden, Identity, NoSuch, NotSignedIn, Refused, may, user_id_of
from service.admin.overview import Waits
from service.admin.runs import FIRST, NEWEST, IssueCursor, IssueFilter, IssueOrder
from service.admin.tokens import Authenticator
from service.core.names import DIRECTIONS
from service.core.sheet import as_csv
from service.settings import Settings
from service.telemetry.health import Health
from service.web.page import session
from service.web.page.memory import Memory
from service.web.page.render import HEADERS, render

ISSUE_ORDERS: tuple[IssueOrder, ...] = get_args(IssueOrder)


def check_text(given: Mapping[str, str]) -> None:
    """Refuse text with a NUL character, which PostgreSQL cannot store.

    Raises:
        Refused: a value contains a NUL character.
    """
    if any("\0" in value for value in given.values()):
        raise Refused("A field contains a NUL character.")


def direction_in(given: Mapping[str, str]) -> Direction:
    """Return the direction, by default `progress_to_license`.

    Raises:
        Refused: there is no such direction.
    """
    named = given.get("direction") or "progress_to_license"
    if named not in DIRECTIONS:
        raise Refused(f"There is no such direction. Use one of {', '.join(DIRECTIONS)}.")
    return named


def user_in(given: Mapping[str, str]) -> int | None:
    """Return the user's id; None where none is given.

    Raises:
        Refused: it is not an id.
    """
    value = given.get("user_id", "").strip()
    number = user_id_of(value)
    if value and number is None:
        raise Refused("A user's id is a whole number above 0.")
    return number


def number_in(given: Mapping[str, str], name: str) -> int | None:
    """Return a whole number; None where none is given.

    Raises:
        Refused: it is not a whole number.
    """
    value = given.get(name, "").strip()
    if not value:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= len(str(INT8_MAX))) or int(value) > INT8_MAX:
        raise Refused(f"{name} must be a whole number.")
    return int(value)


def run_cursor_in(given: Mapping[str, str]) -> tuple[datetime, UUID]:
    """Return the run after which a page begins.

    Raises:
        Refused: it is not a cursor of this page.
    """
    return run_of(given["before"]) if "before" in given else NEWEST


def issue_cursor_in(given: Mapping[str, str]) -> IssueCursor:
    """Return the issue after which a page begins.

    Raises:
        Refused: it is not a cursor of this page.
    """
    return place_of(given["after"]) if "after" in given else FIRST


def issue_filter_in(given: Mapping[str, str]) -> IssueFilter:
    """Return which issues to show, and in which order.

    Raises:
        Refused: there is no such order.
    """
    order = given.get("sort") or "lowered"
    if order not in ISSUE_ORDERS:
        raise Refused(f"There is no such order. Use one of {', '.join(ISSUE_ORDERS)}.")
    named = {name: given.get(name) or None for name in ("kind", "status", "specialization")}
    return IssueFilter(order, falling="lowered" in given, **named)


def action_cursor_in(given: Mapping[str, str]) -> ActionCursor:
    """Return the row of the audit log after which a page begins.

    Raises:
        Refused: it is not a cursor of this page.
    """
    return action_of(given["before"]) if "before" in given else NEWEST_ACTION


def day_in(given: Mapping[str, str], name: str) -> datetime | None:
    """Return the beginning of a day in UTC; None where no day is given.

    Raises:
        Refused: it is not a day.
    """
    value = given.get(name, "").strip()
    if not value:
        return None
    try:
        return datetime.combine(date.fromisoformat(value), datetime.min.time(), UTC)
    except ValueError:
        raise Refused(f"{name} must be a day, for example 2026-11-25.") from None


def numbers_in(given: QueryParams | Mapping[str, str], name: str) -> tuple[int, ...]:
    """Return whole numbers, from a repeated parameter of a query or from a form's field with commas.

    Raises:
        Refused: a value is not a whole number.
    """
    values = given.getlist(name) if isinstance(given, QueryParams) else given.get(name, "").split(",")
    found = (number_in({name: one}, name) for one in values)
    return tuple(number for number in found if number is not None)


def wants_csv(given: Mapping[str, str]) -> bool:
    """Return whether the list should be a CSV file."""
    return given.get("format") == "csv"


LONGEST = 25.0
"""The maximum duration of a request, in seconds."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The dependencies of every request of the page. The health and the memory are this process's."""

    engine: AsyncEngine
    settings: Settings
    authenticator: Authenticator
    health: Health
    memory: Memory
    waits: Waits = field(default_factory=Waits)


@dataclass(frozen=True, slots=True)
class Visit:
    """One request with its identity and its form."""

    request: Request
    parts: Parts
    who: Identity
    csrf: str
    form: Mapping[str, str] = field(default_factory=dict)

    @property
    def engine(self) -> AsyncEngine:
        """Return the engine of the database."""
        return self.parts.engine

    @property
    def query(self) -> Mapping[str, str]:
        """Return the parameters of the query."""
        return self.request.query_params

    def may(self, action: Action) -> bool:
        """Return whether the role allows the action. The page hides the buttons of other actions."""
        return may(self.who, action)

    async def check(self, action: Action) -> None:
        """Check the right to an action. A refusal leaves a row in the audit log.

        Raises:
            Forbidden: the role does not allow the action.
        """
        await check(self.engine, self.who, action)

    def show(
        self, template: str, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
    ) -> Response:
        """Return a page."""
        return render(template, {"visit": self, "path": self.request.url.path, **values}, status, headers)

    def csv(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Response:
        """Return a list as a CSV file of this name."""
        headers = HEADERS | {"Content-Disposition": f'attachment; filename="levelsync-{name}.csv"'}
        return Response(as_csv(columns, rows), media_type="text/csv", headers=headers)

    def with_query(self, **changed: str | int | None) -> str:
        """Return this page's URL with changed parameters and without the cursor. None removes a parameter."""
        kept = {name: value for name, value in self.query.items() if name not in {"before", "after", "format"}}
        parameters = {name: value for name, value in (kept | changed).items() if value not in {None, ""}}
        return f"{self.request.url.path}?{urlencode(parameters)}"

    def redirect(self, path: str) -> Response:
        """Redirect to another page after a form."""
        return RedirectResponse(path, 303, HEADERS)


Endpoint = Callable[[Visit], Awaitable[Response]]
Serve = Callable[[Request], Coroutine[Any, Any, Response]]


def signed_in(endpoint: Endpoint, action: Action = "read") -> Serve:
    """Wrap an endpoint: check the token and the right, and limit the time.

    Raises:
        NotSignedIn, Forbidden, Busy: `service.web.page.app` shows each as a page.
    """

    async def serve(request: Request) -> Response:
        return await _serve(request, endpoint, action)

    return bounded(serve)


def bounded(serve: Serve) -> Serve:
    """Wrap a function that serves a request: limit its time, also where a client sends a form byte by byte.

    Raises:
        Busy: it took too long.
    """

    async def serve_within(request: Request) -> Response:
        return await within(LONGEST, serve(request), "This took too long. Try again in a few seconds.")

    return serve_within


async def _serve(request: Request, endpoint: Endpoint, action: Action) -> Response:
    parts: Parts = request.app.state.parts
    token = session.token_of(request)
    who = await parts.authenticator.identify(token)
    asked_for = {name: str(value) for name, value in request.path_params.items()}
    try:
        if request.method == "POST":
            form = await session.read_form(request, token)
            asked_for |= storable_fields(form)
        else:
            form = {}
        check_text(request.query_params)
        check_text(form)
        await check_alive(parts.engine)
        await _check_not_ended(parts, token)
        parts.memory.remember(token, who)
        await check(parts.engine, who, action, asked_for)
        return await endpoint(Visit(request, parts, who, session.csrf_of(token), form))
    except (Forbidden, NoSuch, Refused) as error:
        if request.method == "POST" and not error.is_audited:
            await refuse(parts.engine, who, action, asked_for, str(error))
        raise


async def _check_not_ended(parts: Parts, token: str) -> None:
    try:
        await sessions.check(parts.engine, token)
    except NotSignedIn:
        parts.memory.end(token)
        raise
