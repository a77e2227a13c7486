"""The API's application, and the role `api` that serves it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from service.admin.tokens import Authenticator
from service.settings import Settings
from service.store.engine import make_engine, pool_sizes
from service.telemetry.health import Health
from service.web import http
from service.web.api import audit, dead_letters, documents, problems, runs, syncs
from service.web.api.backend import Backend
from service.web.api.problems import Requests
from service.web.page import page_routes
from service.web.page.memory import Memory, refreshed

_TAGS = [
    {"name": "sync", "description": "List the pairs that differ, and sync them."},
    {"name": "runs", "description": "List, read and cancel reconcile runs."},
    {"name": "dead letters", "description": "List, read, replay and discard records that could not be applied."},
    {"name": "audit", "description": "Read who requested what, and with which outcome."},
]


def make_app(backend: Backend | None, also: list[BaseRoute] | None = None) -> FastAPI:
    """Create the application. `also` are the routes that every process serves.

    Without a backend the application can only describe itself.
    """
    app = FastAPI(
        title=documents.TITLE,
        description=documents.ABOUT.strip(),
        version=version("levelsync"),
        openapi_tags=_TAGS,
        openapi_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    app.state.backend = backend
    app.router.routes.extend(also or [])
    for router in _routers():
        app.include_router(router)
    documents.install(app)
    problems.install(app)
    app.add_middleware(Requests)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]  # FastAPI's own way to change the document
    return app


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document. It needs no running service."""
    return documents.describe(make_app(None))


def _described(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        app.openapi_schema = documents.describe(app)
    return app.openapi_schema


def _routers() -> list[Any]:
    return [syncs.router, runs.router, dead_letters.router, audit.router]


_BOUNDS = {"lock_timeout": "3s", "statement_timeout": "20s", "idle_in_transaction_session_timeout": "30s"}
_RECYCLE_AFTER = 30
"""Seconds. After a failover behind one address, reads from the old server must end soon."""
_CONNECT_WITHIN, _WAIT_FOR_CONNECTION = 3, 2
"""Seconds. They are short, because a caller waits for the answer."""


class Api:
    """The API of one process.

    Raises:
        SettingsError: the settings of the tokens' keys are missing or wrong.
    """

    def __init__(self, settings: Settings) -> None:
        # A separate engine, because its statements must time out while the caller still waits for the answer.
        engine = make_engine(
            settings,
            pool_size=pool_sizes(settings, with_api=True)[1],
            max_overflow=0,
            pool_recycle=_RECYCLE_AFTER,
            bounds=_BOUNDS,
            connect_within=_CONNECT_WITHIN,
            pool_timeout=_WAIT_FOR_CONNECTION,
        )
        self._backend = Backend(engine, settings, Authenticator(settings, engine))

    @asynccontextmanager
    async def app(self, health: Health, *, with_metrics: bool = True) -> AsyncIterator[Starlette]:
        """Create the application with the operations page and the routes that every process serves."""
        own = self._backend
        memory = Memory()
        page = page_routes(own.engine, own.settings, own.authenticator, health, memory)
        try:
            async with refreshed(memory, own.engine):
                yield make_app(own, [*http.health_routes(health, with_metrics=with_metrics), *page])
        finally:
            await self._backend.engine.dispose()
