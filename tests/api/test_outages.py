"""A database that is absent, silent, busy or not migrated is a 503 within seconds, until it works again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from tests.support.api import serving
from tests.support.links import Way
from tests.support.tables import execute, fill, read
from tests.support.tokens import PREFIX, signed, token
from tests.support.waiting import eventually

CALLS: tuple[tuple[str, str, Any], ...] = (
    ("GET", "/desync-issues", None),
    ("GET", "/runs", None),
    ("POST", "/user/3/all", {}),
    ("POST", "/all", {}),
)


@asynccontextmanager
async def served(settings: Settings, **changes: object) -> AsyncIterator[httpx.AsyncClient]:
    changed = settings.model_copy(update=changes)
    headers = {"Authorization": f"Bearer {token(settings, 'admin')}"}
    async with (
        serving(changed) as url,
        httpx.AsyncClient(base_url=f"{url}{PREFIX}", headers=headers, timeout=30) as client,
    ):
        yield client


async def assert_busy(client: httpx.AsyncClient, seconds: float) -> None:
    """Check that every kind of call, and a token whose user must be looked up, is a 503 in time."""
    lookup = {"Authorization": f"Bearer {signed(roles=None)}"}
    began = time.monotonic()
    answers = await asyncio.gather(
        *(client.request(method, path, json=body) for method, path, body in CALLS),
        client.get("/runs", headers=lookup),
    )
    assert time.monotonic() - began < seconds
    for answer in answers:
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["retry-after"]) > 0
        assert answer.headers["content-type"] == "application/problem+json"
        assert "password" not in answer.text
        assert "127.0.0.1" not in answer.text


async def test_an_absent_database_is_503(settings: Settings) -> None:
    nowhere = SecretStr("postgresql://levelsync:password@127.0.0.1:1/levelsync")
    async with served(settings, database_url=nowhere) as client:
        await assert_busy(client, 3)
        assert (await client.get("/runs", headers={"Authorization": "Bearer x"})).status_code == 401


async def test_a_silent_database_is_503_until_it_speaks(settings: Settings) -> None:
    async with (
        Way(settings.database_url.get_secret_value()) as way,
        served(settings, database_url=way.url) as client,
    ):
        assert (await client.get("/runs")).status_code == 200
        way.open.clear()
        await assert_busy(client, 5)
        await assert_busy(client, 5)
        way.open.set()

        async def well() -> bool:
            return (await client.get("/runs")).status_code == 200

        await eventually(well, 20)


async def test_rows_that_are_locked_are_503(admin: httpx.AsyncClient, engine: AsyncEngine) -> None:
    """More callers than connections wait for the row, and none of them writes."""
    await fill(engine, {(3, "PLAYER"): 5}, {(3, "PLAYER"): 1})
    async with engine.begin() as conn:
        await conn.execute(text("SELECT * FROM specialization_progress FOR UPDATE"))
        began = time.monotonic()
        calls = (admin.post("/user/3", json={"specialization": "PLAYER"}) for _ in range(20))
        answers = await asyncio.gather(*calls)
        assert {answer.status_code for answer in answers} == {503}
        assert time.monotonic() - began < 10
    assert (await admin.post("/user/3", json={"specialization": "PLAYER"})).json()["action"] == "updated"
    outcomes = await read(engine, "SELECT outcome, count(*) FROM levelsync.admin_actions GROUP BY 1")
    assert dict(tuple(row) for row in outcomes)["done"] == 1


async def test_a_database_that_is_not_migrated_is_503(admin: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await execute(engine, "ALTER SCHEMA levelsync RENAME TO elsewhere")
    assert (await admin.get("/runs")).status_code == 503
    await execute(engine, "ALTER SCHEMA elsewhere RENAME TO levelsync")
    assert (await admin.get("/runs")).status_code == 200
    await execute(engine, "ALTER TABLE specializations RENAME TO gone")
    assert (await admin.post("/user/3/all")).status_code == 503
