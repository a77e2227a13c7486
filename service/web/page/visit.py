"""One request of the page: who asks, what the form holds, what is answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, TypeVar, get_args
from urllib.parse import urlencode
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from events import Direction
from events.base import INT8_MAX
from service.admin import sessions
from service.admin.audit import NEWEST_ACTION, ActionCursor, check, refuse, what_was_sent
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
        Refused: it is not an id.
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


Key = TypeVar("Key")


def run_cursor_in(given: Mapping[str, str]) -> tuple[datetime, UUID]:
    """Behind which run a page begins.

    Raises:
        Refused: nothing that this page made.
    """
    return _cursor_in(given, NEWEST, UUID, "runs")


def issue_cursor_in(given: Mapping[str, str]) -> IssueCursor:
    """Behind which issue a page begins.

    Raises:
        Refused: nothing that this page made.
    """
    if "after" not in given:
        return FIRST
    user, place, specialization = [*given["after"].split("~", 2), "", ""][:3]
    number = user_id_of(user.removeprefix("-"))
    if number is None:
        raise Refused("There is no such page of issues.")
    return place, (-number if user.startswith("-") else number), specialization


def issue_filter_in(given: Mapping[str, str]) -> IssueFilter:
    """Return which issues are wanted, and in which order.

    Raises:
        Refused: there is no such order.
    """
    order = given.get("sort") or "lowered"
    if order not in ISSUE_ORDERS:
        raise Refused(f"There is no such order; there are {', '.join(ISSUE_ORDERS)}.")
    named = {name: given.get(name) or None for name in ("kind", "status", "specialization")}
    return IssueFilter(order, falling="lowered" in given, **named)


def action_cursor_in(given: Mapping[str, str]) -> ActionCursor:
    """Return the row of the audit log behind which a page begins.

    Raises:
        Refused: nothing that this page made.
    """
    return _cursor_in(given, NEWEST_ACTION, int, "the audit log")


def _cursor_in(
    given: Mapping[str, str], newest: tuple[datetime, Key], read_key: Callable[[str], Key], what: str
) -> tuple[datetime, Key]:
    if "before" not in given:
        return newest
    at, _, key = given["before"].partition("~")
    try:
        return datetime.fromisoformat(at).astimezone(UTC), read_key(key)
    except (ValueError, OverflowError):
        raise Refused(f"There is no such page of {what}.") from None


def day_in(given: Mapping[str, str], name: str) -> datetime | None:
    """Return the beginning of a day in UTC, where one is given.

    Raises:
        Refused: it is none.
    """
    said = given.get(name, "").strip()
    if not said:
        return None
    try:
        return datetime.combine(date.fromisoformat(said), datetime.min.time(), UTC)
    except ValueError:
        raise Refused(f"{name} is a day, as 2026-11-25.") from None


def numbers_in(given: QueryParams | Mapping[str, str], name: str) -> tuple[int, ...]:
    """Return whole numbers: given several times in a query, or in one field of a form with commas between them.

    Raises:
        Refused: one of them is none.
    """
    said = given.getlist(name) if isinstance(given, QueryParams) else given.get(name, "").split(",")
    found = (number_in({name: one}, name) for one in said)
    return tuple(number for number in found if number is not None)


def wants_csv(given: Mapping[str, str]) -> bool:
    """Return whether the list is wanted as a sheet."""
    return given.get("format") == "csv"


LONGEST = 25.0
"""Seconds of one request."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the page is made of; the same in every process, but for the health, which is this one's."""

    engine: AsyncEngine
    settings: Settings
    authenticator: Authenticator
    health: Health
    memory: Memory
    waits: Waits = field(default_factory=Waits)


@dataclass(frozen=True, slots=True)
class Visit:
    """Who asks, what for, and what to ask."""

    request: Request
    parts: Parts
    who: Identity
    csrf: str
    form: Mapping[str, str] = field(default_factory=dict)

    @property
    def engine(self) -> AsyncEngine:
        """The database."""
        return self.parts.engine

    @property
    def query(self) -> Mapping[str, str]:
        """The question behind the `?`."""
        return self.request.query_params

    def may(self, action: Action) -> bool:
        """Whether they may: a button that they may not press is not shown."""
        return may(self.who, action)

    async def check(self, action: Action) -> None:
        """Let them ask for it, or leave a row in the audit log.

        Raises:
            Forbidden: their role may not.
        """
        await check(self.engine, self.who, action)

    def show(
        self, template: str, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
    ) -> Response:
        """A page."""
        return render(template, {"visit": self, "path": self.request.url.path, **values}, status, headers)

    def sheet(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Response:
        """A list as CSV, for a file of this name."""
        headers = HEADERS | {"Content-Disposition": f'attachment; filename="levelsync-{name}.csv"'}
        return Response(as_csv(columns, rows), media_type="text/csv", headers=headers)

    def with_query(self, **changed: str | int | None) -> str:
        """The address of this page with other parameters; None leaves one out."""
        kept = {name: value for name, value in self.query.items() if name not in {"before", "after", "format"}}
        said = {name: value for name, value in (kept | changed).items() if value not in {None, ""}}
        return f"{self.request.url.path}?{urlencode(said)}"

    def go(self, path: str) -> Response:
        """Another page, after a form."""
        return RedirectResponse(path, 303, HEADERS)


Endpoint = Callable[[Visit], Awaitable[Response]]
Serve = Callable[[Request], Coroutine[Any, Any, Response]]


def signed_in(endpoint: Endpoint, action: Action = "read") -> Serve:
    """Serve an endpoint to whoever may do what it does, within a bound.

    Raises:
        NotSignedIn, Forbidden, Busy: what `service.web.page.app` shows as pages of their own.
    """

    async def serve(request: Request) -> Response:
        return await _serve(request, endpoint, action)

    return bounded(serve)


def bounded(serve: Serve) -> Serve:
    """Serve within a bound: also somebody who sends a form byte by byte.

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
            asked_for |= what_was_sent(form)
        else:
            form = {}
        check_text(request.query_params)
        check_text(form)
        await check_alive(parts.engine)
        await _check_not_ended(parts, token)
        parts.memory.let_in(token, who)
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
