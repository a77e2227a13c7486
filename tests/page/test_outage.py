"""The overview while PostgreSQL is away: the last known values, with their age."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from service.admin.identity import Identity
from service.settings import Settings
from service.telemetry.health import Health
from service.web.page import memory
from service.web.page.memory import Memory
from service.web.page.session import SESSION, csrf_of
from tests.support import api
from tests.support.links import Way
from tests.support.tables import execute
from tests.support.tokens import somebody, token
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")
NOWHERE = SecretStr("postgresql://postgres@127.0.0.1:1/postgres")
_LETTER = """
    INSERT INTO levelsync.dead_letters (topic, partition, "offset", record_timestamp, reason)
    VALUES ('progress.leveled-up', 0, 1, 0, 'malformed')
"""


def words(answer: httpx.Response) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", answer.text.partition("<main")[2]).split())


@asynccontextmanager
async def serving(settings: Settings, health: Health, **cookies: str) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the role `api`; yield a client with these cookies."""
    async with (
        api.serving(settings, health) as url,
        httpx.AsyncClient(base_url=url, timeout=20, cookies=cookies) as client,
    ):
        yield client


async def test_a_process_that_began_in_an_outage_keeps_the_three_questions(page_settings: Settings) -> None:
    away = page_settings.model_copy(update={"database_url": NOWHERE})
    health = Health()
    health.report("postgresql", "test", "PostgreSQL at db.example:5432: no answer")
    health.report("kafka", "test", "Kafka does not answer: refused")
    async with serving(away, health, **{SESSION: token(away, "instructor")}) as client:
        answer = await client.get("/")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        said = words(answer)
        assert "Is it working? No, not everything: The database cannot answer now; try again in a few seconds." in said
        assert "postgresql: PostgreSQL at …: no answer kafka: Kafka does not answer: refused" in said
        unknown = "Not known now. This process has not read the answer since it started."
        assert f"Is there drift? {unknown} Is anything stuck? {unknown}" in said
        assert "Last known values" not in said


async def test_nobody_without_a_session_sees_the_outage(page_settings: Settings) -> None:
    """Neither without a session, nor with a token whose role is in the database."""
    away = page_settings.model_copy(update={"database_url": NOWHERE})
    health = Health()
    health.report("kafka", "test", "Kafka does not answer")
    async with serving(away, health) as client:
        assert (await client.get("/")).headers["location"] == "/page/sign-in?next=%2F"
        client.cookies.set(SESSION, "no token")
        assert (await client.get("/")).status_code == 303
        client.cookies.set(SESSION, token(away, "student"))
        answer = await client.get("/")
        assert answer.status_code == 403
        assert "Kafka" not in answer.text


async def test_the_last_known_values_stay_with_their_age(
    page_settings: Settings, page_engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process reads them even before anybody looks. A signed-out token sees none of them."""
    monkeypatch.setattr(memory, "EVERY", 0.1)
    await execute(page_engine, _LETTER)
    first, second = token(page_settings), token(page_settings, "instructor")
    async with Way(page_settings.database_url.get_secret_value()) as way:
        settings = page_settings.model_copy(update={"database_url": way.url})
        async with serving(settings, Health(), **{SESSION: first}) as client:
            assert (await client.get("/")).status_code == 200
            assert (await client.post("/page/sign-out", data={"csrf": csrf_of(first)})).status_code == 303
            way.open.clear()
            client.cookies.set(SESSION, second)
            answer = await client.get("/")
            assert answer.status_code == 503
            said = words(answer)
            assert re.search(r"Last known values, (less than a second|\d+ seconds?) ago", said)
            assert re.search(r"Is anything stuck\? Not known now\. The answer .{5,30} ago: These need a decision", said)
            assert "1 dead letter is open" in said
            assert re.search(r"It shows the state of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", said)
            client.cookies.set(SESSION, first)
            assert (await client.get("/")).headers["location"].startswith("/page/sign-in")
            way.open.set()
            client.cookies.set(SESSION, second)

            async def well() -> bool:
                return (await client.get("/")).status_code == 200

            await eventually(well, 30)
    await execute(page_engine, "TRUNCATE levelsync.dead_letters")


async def test_a_bounded_number_of_people_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_PEOPLE", 2)
    kept, admin = Memory(), somebody("admin")
    for one in ("a", "b", "c"):
        kept.remember(one, admin)
    kept.remember("d", Identity("1", "admin", admin.expires_at - timedelta(days=30)))
    assert [kept.find(one) for one in ("a", "b", "c", "d")] == [None, None, admin, None]
