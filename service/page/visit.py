"""One request of somebody who is signed in: what an endpoint of the page works with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from service.admin import ended_sessions
from service.admin.audit import check, refuse, what_was_sent
from service.admin.database import check_alive, within
from service.admin.errors import Forbidden, NoSuch, NotSignedIn, Refused
from service.admin.identity import Identity
from service.admin.measured import Waits
from service.admin.permissions import Action, may
from service.admin.tokens import Authenticator
from service.health import Health
from service.page import session
from service.page.inputs import check_text
from service.page.memory import Memory
from service.page.render import HEADERS, render
from service.settings import Settings

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

    def go(self, path: str) -> Response:
        """Another page, after a form."""
        return RedirectResponse(path, 303, HEADERS)


Endpoint = Callable[[Visit], Awaitable[Response]]
Serve = Callable[[Request], Coroutine[Any, Any, Response]]


def signed_in(endpoint: Endpoint, action: Action = "read") -> Serve:
    """Serve an endpoint to whoever may do what it does, within a bound.

    Raises:
        NotSignedIn, Forbidden, Busy: what `service.page.app` shows as pages of their own.
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
        return await within(LONGEST, serve(request), "This took too long; try again in a few seconds.")

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
        await ended_sessions.check(parts.engine, token)
    except NotSignedIn:
        parts.memory.end(token)
        raise
