"""The page's routes, and the pages for errors."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

import service.web.http  # noqa: F401 - for {…:id}
from service.admin.identity import Action, AdminError, Busy, Forbidden, NoSuch, NotSignedIn, Refused
from service.admin.tokens import Authenticator
from service.settings import Settings
from service.telemetry.health import Health
from service.web.page import audit, letters, overview, runs, session, users
from service.web.page.memory import Memory
from service.web.page.render import HEADERS, asset, render
from service.web.page.visit import Endpoint, Parts, bounded, signed_in

TRENDS = "/page/trends"
_STATUS = {Forbidden: 403, NoSuch: 404, Refused: 422}
_TITLES = {
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    422: "Invalid request",
    500: "A defect of levelsync",
    503: "The database cannot answer now",
}


def make_page(
    engine: AsyncEngine, settings: Settings, authenticator: Authenticator, health: Health, memory: Memory
) -> Starlette:
    """Create the application for `/` and for everything below `/page`."""
    answers = {AdminError: _answer, HTTPException: _http, Exception: _defect}
    app = Starlette(routes=_routes(), exception_handlers=answers)
    app.state.parts = Parts(engine, settings, authenticator, health, memory)
    return app


def _routes() -> list[BaseRoute]:
    return [
        Route("/assets/{name}", asset),
        Route("/sign-in", bounded(session.sign_in), methods=["GET", "POST"]),
        Route("/sign-out", bounded(session.sign_out), methods=["POST"]),
        _get("/", overview.overview),
        _get("/trends", overview.trends),
        _get("/runs", runs.list_runs),
        _post("/runs", runs.start, "request_run"),
        _get("/runs/{run_id:uuid}", runs.show_run),
        _get("/runs/{run_id:uuid}/execute", runs.ask_execute),
        _post("/runs/{run_id:uuid}/execute", runs.execute, "request_run"),
        _get("/runs/{run_id:uuid}/cancel", runs.ask_cancel),
        _post("/runs/{run_id:uuid}/cancel", runs.cancel, "cancel_run"),
        _get("/users", users.find),
        _get("/users/{user_id:id}", users.show_user),
        _get("/users/{user_id:id}/sync", users.ask_sync),
        _post("/users/{user_id:id}/sync", users.sync, "sync_user"),
        Route("/audit", signed_in(audit.list_audit, "read_audit"), methods=["GET"]),
        _get("/dead-letters", letters.list_letters),
        _get("/dead-letters/{letter_id:id}", letters.show_letter),
        _post("/dead-letters/replay", letters.replay, "replay_letters"),
        _post("/dead-letters/discard", letters.discard, "discard_letters"),
        _get("/dead-letters/{verb:str}", letters.ask),
    ]


def _get(path: str, endpoint: Endpoint) -> Route:
    return Route(path, signed_in(endpoint), methods=["GET"])


def _post(path: str, endpoint: Endpoint, action: Action) -> Route:
    return Route(path, signed_in(endpoint, action), methods=["POST"])


async def _answer(request: Request, error: Exception) -> Response:
    if isinstance(error, NotSignedIn):
        return session.ask_to_sign_in(request, error)
    if isinstance(error, Busy):
        if request.url.path == "/" and (shown := await _outage(request, error)):
            return shown
        if request.url.path == TRENDS:  # the browser keeps the charts that it shows
            return Response(status_code=204, headers=HEADERS)
        again = request.url.path if request.method == "GET" else "/"
        return _page(503, str(error), {"Retry-After": str(error.retry_after)}, again)
    return _page(next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500), str(error))


async def _outage(request: Request, error: Busy) -> Response | None:
    try:
        return await overview.show(request, error)
    except AdminError as refused:
        return await _answer(request, refused)


async def _http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - it is installed for nothing else
    detail = "There is no such page." if error.status_code == 404 else str(error.detail)  # noqa: PLR2004 - HTTP's own
    return _page(error.status_code, detail, dict(error.headers or {}))


async def _defect(_request: Request, _error: Exception) -> Response:
    return _page(500, "The log contains the error. Your request was not carried out, or not completely.")


def _page(status: int, detail: str, headers: Mapping[str, str] | None = None, again: str = "") -> Response:
    values = {"title": _TITLES.get(status, "Not possible"), "detail": detail, "status": status, "again": again}
    return render("error.html", values, status, headers)
