"""The API on a real socket of this process."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from service.settings import Settings
from service.telemetry.health import Health
from service.web import http
from service.web.api.app import Api

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of plain HTTP. A new context loads the trusted certificates, which takes 20 ms."""
Client = Callable[..., httpx.AsyncClient]
"""The fixture `client` of tests/api."""


async def pages(client: httpx.AsyncClient, path: str) -> list[list[dict[str, Any]]]:
    """Follow the links of a list to its end; return the rows of each page."""
    found = []
    while path:
        answer = await client.get(path)
        found.append(answer.json())
        path = answer.links.get("next", {}).get("url", "").removeprefix(client.base_url.path.rstrip("/"))
    return found


@asynccontextmanager
async def serving(settings: Settings, health: Health | None = None) -> AsyncIterator[str]:
    """Serve the role `api` without Kafka; yield its URL."""
    async with Api(settings).app(health or Health()) as app, http.served(app, http.bind(settings)) as url:
        yield url
