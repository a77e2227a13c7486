"""User ids are bigint: user 3,000,000,000 works by event, sync, list and run, and in the views."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from uuid import UUID

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from events import ProgressLeveledUp
from service.admin.pairs import START
from service.reconcile.runs import read_issues
from service.settings import Settings
from service.store.engine import make_engine
from service.sync import ProgressLicenseSyncService
from service.sync.issues import page_of_issues
from tests.support import application, applier
from tests.support.api import serving
from tests.support.process import environment, levelsync
from tests.support.runs import OneWorker
from tests.support.tables import execute, read
from tests.support.tokens import PREFIX, token

LARGE = 3_000_000_000
USERS_ARE_BIGINT = (
    "ALTER TABLE users ALTER id TYPE bigint",
    "ALTER TABLE specialization_progress ALTER student_id TYPE bigint",
    "ALTER TABLE user_licenses ALTER user_id TYPE bigint",
    "ALTER TABLE license_progressions ALTER advanced_by TYPE bigint",
    f"INSERT INTO users (id, name, email, role) VALUES ({LARGE}, 'Large', 'large@x.org', 'admin')",
)


@pytest.fixture
async def bigint(url: str) -> Settings:
    """The settings of an application with bigint ids, migrated."""
    await application.make_application(url, *USERS_ARE_BIGINT)
    await application.upgrade(url)
    return application.settings(url).model_copy(update={"reconcile_grace": timedelta(0)})


@pytest.fixture
async def large(bigint: Settings) -> AsyncIterator[AsyncEngine]:
    """The service's engine on that database."""
    engine = make_engine(bigint)
    yield engine
    await engine.dispose()


def test_an_event_may_be_about_any_bigint() -> None:
    event = ProgressLeveledUp(user_id=LARGE, specialization="PLAYER", to_level=3)
    assert event.user_id == 3_000_000_000
    assert ProgressLeveledUp.model_json_schema()["properties"]["user_id"]["maximum"] == 9_223_372_036_854_775_807


async def test_a_full_run_plans_beyond_integer_and_heals(bigint: Settings, large: AsyncEngine) -> None:
    """Earlier, the end of the range did not fit, and the run stayed in `planning`."""
    columns = "student_id, specialization_id, current_level"
    await execute(large, f"INSERT INTO specialization_progress ({columns}) VALUES ({LARGE}, 'PLAYER', 4)")
    one_worker = OneWorker(large, bigint)
    dry = await one_worker.run()
    assert (dry["status"], dry["counts"]["missing_license"]) == ("completed", 1)
    async with large.connect() as conn:
        assert [issue.user_id for issue in await read_issues(conn, UUID(dry["run_id"]), 10)] == [3_000_000_000]
    assert await read(large, "SELECT user_id, kind FROM levelsync.drift") == [(3_000_000_000, "missing_license")]
    pair = f"SELECT license_level, state FROM levelsync.pairs WHERE user_id = {LARGE}"
    assert await read(large, pair) == [(None, "missing_license")]
    real = await one_worker.run(dry_run=False)
    assert (real["status"], real["counts"]["healed"]) == ("completed", 1)
    assert await read(large, f"SELECT current_level FROM user_licenses WHERE user_id = {LARGE}") == [(4,)]
    assert (await one_worker.run(user_id=LARGE))["counts"]["matching"] == 1


async def test_syncs_fences_and_pages_accept_the_user(large: AsyncEngine) -> None:
    sync = ProgressLicenseSyncService(large)
    await sync.set_level(LARGE, "PLAYER", 5, synced_by=LARGE)
    assert await read(large, "SELECT advanced_by FROM license_progressions") == [(3_000_000_000,)]
    await execute(large, "UPDATE specialization_progress SET current_level = 2 WHERE student_id > 100")
    async with large.begin() as conn:
        found = await page_of_issues(conn, None, START, 10)
        assert [(issue.user_id, issue.issue_type) for issue in found] == [(3_000_000_000, "mismatched")]
        assert await page_of_issues(conn, None, (LARGE, "PLAYER"), 10) == []
    assert (await sync.sync_progress_to_license(LARGE, "PLAYER", LARGE)).success
    assert await read(large, "SELECT user_id, level FROM levelsync.fences") == [(3_000_000_000, 2)]


async def test_an_event_a_command_and_the_api_accept_the_user(bigint: Settings, large: AsyncEngine) -> None:
    await (await applier.Events(large).begin()).apply(applier.rise(LARGE, 3))
    assert await read(large, f"SELECT current_level FROM user_licenses WHERE user_id = {LARGE}") == [(3,)]
    given = environment(bigint, JWT_SECRET="a-secret-of-the-tests-with-32-bytes")  # noqa: S106
    direction = ("--direction", "license_to_progress")
    command = partial(levelsync, "sync", str(LARGE), "--specialization", "PLAYER", *direction, env=given)
    run = await asyncio.to_thread(command)
    assert run.returncode == 0, run.stderr
    assert await read(large, f"SELECT current_level FROM specialization_progress WHERE student_id = {LARGE}") == [(3,)]
    settings = bigint.model_copy(update={"jwt_secret": SecretStr(given["LEVELSYNC_JWT_SECRET"]), "http_port": 0})
    headers = {"Authorization": f"Bearer {token(settings, 'admin', str(LARGE))}"}
    async with serving(settings) as url, httpx.AsyncClient(base_url=f"{url}{PREFIX}", headers=headers) as admin:
        answer = await admin.post(f"/user/{LARGE}", json={"specialization": "PLAYER"})
        assert (answer.status_code, answer.json()["message"]) == (200, "Already in sync"), answer.text


async def test_rows_grants_and_views_outlive_the_change(url: str) -> None:
    await application.make_application(url)
    await application.upgrade(url, "operate")
    name = f"reader_{url[-8:]}"
    run = "00000000-0000-0000-0000-000000000001"
    await application.execute(
        url,
        "INSERT INTO levelsync.fences VALUES (7, 'PLAYER', now(), 2)",
        "INSERT INTO levelsync.reconcile_runs (id, status, direction, dry_run, force, finished_at)"
        f" VALUES ('{run}', 'completed', 'highest', true, false, now())",
        f"INSERT INTO levelsync.drift_issues VALUES ('{run}', 7, 'PLAYER', 'mismatched', 2, 3, 'confirmed')",
        f"CREATE ROLE {name}",
        f"GRANT SELECT ON levelsync.drift, levelsync.pairs TO {name}",
        f"GRANT SELECT ON levelsync.complete_scans TO {name} WITH GRANT OPTION",
    )
    try:
        await application.upgrade(url)
        granted = f"SELECT table_name, is_grantable FROM information_schema.table_privileges WHERE grantee = '{name}'"
        grants = [("complete_scans", "YES"), ("drift", "NO"), ("pairs", "NO")]
        assert sorted(await application.rows(url, granted)) == grants
        assert await application.rows(url, "SELECT user_id, kind FROM levelsync.drift") == [(7, "mismatched")]
        assert await application.rows(url, "SELECT user_id, level FROM levelsync.fences") == [(7, 2)]
        assert await application.rows(url, "SELECT user_id, state FROM levelsync.pairs") == [(1, "in_sync")]
    finally:
        await application.execute(url, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


async def test_a_foreign_view_is_named_before_any_change(url: str) -> None:
    await application.make_application(url)
    await application.upgrade(url, "operate")
    await application.execute(url, "CREATE VIEW of_mine AS SELECT user_id FROM levelsync.drift")
    sentence = await application.refused(url)
    assert "of_mine reads levelsync.drift" in sentence
    assert sentence.endswith("Nothing was changed.")
    await application.execute(url, "DROP VIEW of_mine")
    await application.upgrade(url)


async def test_the_previous_release_writes_to_the_wider_columns(database_url: str) -> None:
    run = "00000000-0000-0000-0000-000000000001"
    await application.execute(
        database_url,
        "INSERT INTO levelsync.reconcile_runs (id, direction, dry_run, force, user_id)"
        f" VALUES ('{run}', 'highest', true, false, CAST(5 AS int))",
        "INSERT INTO levelsync.reconcile_ranges (run_id, chunk, after_user, upto_user)"
        f" SELECT '{run}', v.* FROM unnest(ARRAY[0]::int[], ARRAY[0]::int[], ARRAY[9]::int[]) AS v",
        "INSERT INTO levelsync.fences AS f (user_id, specialization, decided_at, level, decided_by)"
        " SELECT v.*, now(), 1, '' FROM unnest(ARRAY[5]::int[], ARRAY['PLAYER']) AS v",
    )
    assert await application.rows(database_url, "SELECT after_user, upto_user FROM levelsync.reconcile_ranges") == [
        (0, 9)
    ]
