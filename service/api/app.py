"""The application of a process with the role `api`."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.routing import BaseRoute

from service.api import bulk, dead_letters, documents, problems, runs, syncs
from service.api.backend import Backend
from service.api.middleware import Requests

_TAGS = [
    {"name": "sync", "description": "What differs, and bringing it into agreement."},
    {"name": "runs", "description": "Reconcile runs: watching, reading and cancelling them."},
    {"name": "dead letters", "description": "Records that could not be applied: reading, replaying, discarding them."},
]


def make_app(backend: Backend | None, also: list[BaseRoute] | None = None) -> FastAPI:
    """The application; `also` are the routes that every process serves. Without a backend it only describes itself."""
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
    """The OpenAPI 3.1 document, without a service."""
    return documents.describe(make_app(None))


def _described(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        app.openapi_schema = documents.describe(app)
    return app.openapi_schema


def _routers() -> list[Any]:
    return [syncs.router, bulk.router, runs.router, dead_letters.router]
