"""The API on a real socket in this process, with the test's own database and no Kafka."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from service.settings import Settings
from tests.support.api import NO_TLS, Client, serving
from tests.support.tokens import PREFIX, token


@pytest.fixture
async def api_url(settings: Settings) -> AsyncIterator[str]:
    async with serving(settings) as url:
        yield url


@pytest.fixture
async def client(api_url: str, settings: Settings) -> AsyncIterator[Client]:
    """`client("admin")` has that role's token, and `client(None)` has none."""
    made: dict[tuple[str | None, str], httpx.AsyncClient] = {}

    def make(role: str | None, subject: str = "1") -> httpx.AsyncClient:
        if (role, subject) not in made:
            headers = {} if role is None else {"Authorization": f"Bearer {token(settings, role, subject)}"}
            url = f"{api_url}{PREFIX}"
            made[role, subject] = httpx.AsyncClient(base_url=url, headers=headers, timeout=40, verify=NO_TLS)
        return made[role, subject]

    yield make
    for one in made.values():
        await one.aclose()


@pytest.fixture
def admin(client: Client) -> httpx.AsyncClient:
    """User 1, an admin."""
    return client("admin")
