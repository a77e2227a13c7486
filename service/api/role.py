"""The role `api`: its keys, its own engine, its application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette

from service import http
from service.admin.tokens import Authenticator
from service.api.app import make_app
from service.api.backend import Backend
from service.database.engine import make_engine, pool_sizes
from service.health import Health
from service.page import page_routes
from service.page.memory import Memory, kept
from service.settings import Settings

_BOUNDS = {"lock_timeout": "3s", "statement_timeout": "20s", "idle_in_transaction_session_timeout": "30s"}
_RECYCLE_AFTER = 30
"""Seconds: after a failover behind one address, reading must not go on from the old server."""
_CONNECT_WITHIN, _WAIT_FOR_CONNECTION = 3, 2
"""Seconds: somebody waits for every one of these."""


class Api:
    """The API of one process.

    Raises:
        SettingsError: no key is configured for tokens, or not what belongs to it.
    """

    def __init__(self, settings: Settings) -> None:
        # Its own engine: its connections give up while somebody still waits for the answer.
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
        """Create the application, beside the operations page and what every process serves."""
        own = self._backend
        memory = Memory()
        page = page_routes(own.engine, own.settings, own.authenticator, health, memory)
        try:
            async with kept(memory, own.engine):
                yield make_app(own, [*http.health_routes(health, with_metrics=with_metrics), *page])
        finally:
            await self._backend.engine.dispose()
