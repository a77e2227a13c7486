"""The overview while the database is away: the three questions, what has a problem, and the last known values."""

from __future__ import annotations

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from service.admin.errors import Busy, NotSignedIn
from service.admin.permissions import allow
from service.admin.verdict import judge
from service.page import overview, session
from service.page.visit import Parts, Visit


async def show(request: Request, error: Busy) -> Response | None:
    """Answer from this process's memory; None for somebody whose token cannot be checked without the database.

    Raises:
        NotSignedIn, Forbidden: the token is not good, or was signed out as far as this process knows.
    """
    parts: Parts = request.app.state.parts
    visit = await _visit(request, parts)
    if visit is None:
        return None
    problems = parts.health.for_anybody()
    last = parts.memory.last
    every = parts.settings.reconcile_every
    return visit.show(
        "outage.html",
        503,
        {"Retry-After": str(error.retry_after)},
        said=str(error),
        problems=problems,
        verdict=judge(last, every) if last else None,
        **(overview.values(replace(last, problems=problems), every, parts.memory) if last else {"seen": None}),
        questions=overview.QUESTIONS,
        links=overview.LINKS,
        refresh=overview.REFRESH,
    )


async def _visit(request: Request, parts: Parts) -> Visit | None:
    token = session.token_of(request)
    if parts.memory.is_ended(token):
        raise NotSignedIn("The token was signed out: a new one is needed.")
    who = parts.memory.find(token)
    if who is None:
        try:
            who = await parts.authenticator.identify(token)
        except Busy:
            return None
    allow(who, "read")
    return Visit(request, parts, who, session.csrf_of(token))
