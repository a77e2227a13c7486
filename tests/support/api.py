"""The API on a real socket of this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx

from service.settings import Settings
from service.telemetry.health import Health
from service.web import http
from service.web.api.app import Api

Client = Callable[..., httpx.AsyncClient]
"""The fixture `client` of tests/api."""


@asynccontextmanager
async def serving(settings: Settings, health: Health | None = None) -> AsyncIterator[str]:
    """Serve the role `api` without Kafka; yield its URL."""
    async with Api(settings).app(health or Health()) as app, http.served(app, http.bind(settings)) as url:
        yield url
