"""PgBouncer: session mode works, and transaction mode is refused on the first connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.checks import rights
from service.process.runtime import Service
from service.settings import Settings, SettingsError
from tests.support import application
from tests.support.application import asked
from tests.support.pgbouncer import PROGRAM, pgbouncer
from tests.support.process import environment, levelsync
from tests.support.servers import Postgres
from tests.support.topics import Publish, raised
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs Debian's pgbouncer")
_IGNORED = (
    "default_transaction_isolation,row_security,lock_timeout,statement_timeout,"
    "idle_in_transaction_session_timeout,plan_cache_mode,jit"
)


@pytest.fixture(scope="module")
def session_mode(postgres: Postgres) -> Iterator[str]:
    with pgbouncer(postgres.url, "session") as place:
        yield place


@pytest.fixture(scope="module", params=["refusing parameters", "ignoring parameters", "round robin", "statement"])
def not_session_mode(postgres: Postgres, request: pytest.FixtureRequest) -> Iterator[str]:
    """PgBouncer in the other modes, with and without options that people set."""
    mode = "statement" if request.param == "statement" else "transaction"
    more = {"server_round_robin": "1", "min_pool_size": "3"} if request.param == "round robin" else {}
    if request.param == "ignoring parameters":
        more = {"ignore_startup_parameters": _IGNORED}
    with pgbouncer(postgres.url, mode, more) as place:
        yield place


def _through(place: str, settings: Settings) -> Settings:
    url = urlsplit(settings.database_url.get_secret_value())
    return settings.model_copy(update={"database_url": SecretStr(url._replace(netloc=place).geturl())})


async def test_transaction_mode_is_refused_on_the_first_connection(not_session_mode: str, settings: Settings) -> None:
    with pytest.raises(SettingsError, match="a pooler in transaction mode"):
        await asked(_through(not_session_mode, settings), rights)


async def test_every_command_refuses_transaction_mode(postgres: Postgres, settings: Settings) -> None:
    """`doctor` reports a failed check. The others end with exit code 2."""
    with pgbouncer(postgres.url, "transaction") as place:
        given = environment(_through(place, settings))
        for command, code in (("migrate", 2), ("drift", 2), ("doctor", 1), ("serve", 2)):
            run = levelsync(command, env=given)
            assert run.returncode == code, (command, run.stdout, run.stderr)
            assert "a pooler in transaction mode" in run.stdout + run.stderr, command
            assert "Traceback" not in run.stderr, command


async def test_session_mode_has_every_setting(session_mode: str, settings: Settings) -> None:
    """PgBouncer refuses most startup parameters, so they are set afterwards."""
    names = ("transaction_isolation", "timezone", "lock_timeout", "row_security", "jit", "plan_cache_mode")

    async def shown(conn: AsyncConnection) -> list[str]:
        return [await conn.scalar(text(f"SHOW {name}")) for name in names]

    expected = ["read committed", "UTC", "10s", "off", "off", "force_custom_plan"]
    assert await asked(_through(session_mode, settings), shown) == expected


def test_session_mode_migrates(session_mode: str, empty_database_url: str) -> None:
    """The lock of a migration belongs to its session."""
    url = urlsplit(empty_database_url)._replace(netloc=session_mode).geturl()
    run = levelsync("migrate", env={"LEVELSYNC_DATABASE_URL": url})
    assert run.returncode == 0, run.stderr


@pytest.mark.real_broker
@pytest.mark.usefixtures("topics")
async def test_all_roles_work_in_session_mode(session_mode: str, settings: Settings, publish: Publish) -> None:
    url = settings.database_url.get_secret_value()
    given = _through(session_mode, settings).model_copy(update={"database_pool_size": 8})
    async with Service(given) as service:
        await service.ready()
        await publish([raised(user) for user in range(1, 101)])
        await eventually(lambda: _licensed(url))
        damage = "UPDATE user_licenses SET current_level = 2 WHERE user_id = 1 AND current_level = 7"
        await application.execute(url, damage)
        run = await asyncio.to_thread(levelsync, "reconcile", "--json", env=environment(given))
        assert run.returncode == 1, run.stderr
        assert json.loads(run.stdout)["counts"]["mismatched"] >= 1
        assert service.health.ready, service.health.problems


async def _licensed(url: str) -> bool:
    return bool(await application.value(url, "SELECT count(*) FROM user_licenses WHERE current_level >= 7") >= 100)
