"""The stored functions follow the application's tables: `doctor` names a change, and `migrate` creates them again."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import SecretStr

from service.checks.installation import migrations
from service.process.startup import wait_until_ready
from service.settings import Settings
from service.store.engine import make_engine
from service.sync import ProgressLicenseSyncService
from service.telemetry.health import Health
from tests.support import application as live
from tests.support.waiting import eventually

LEVELS = """
    INSERT INTO specialization_progress (student_id, specialization_id, current_level) VALUES (1, 'PLAYER', 5)
"""
CAST = "specialization_type::text::specialization_name"
MOVE = [
    *("CREATE SCHEMA app", "ALTER TABLE user_licenses SET SCHEMA app", "ALTER TABLE users SET SCHEMA app"),
    "DO $$BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = public, app', current_database()); END$$",
]
NAMES = "CREATE TYPE specialization_name AS ENUM ('PLAYER', 'COACH', 'INTERNSHIP')"


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (
            ["ALTER TABLE license_progressions ALTER advanced_at TYPE timestamptz"],
            "license_progressions.advanced_at was timestamp without time zone and is timestamp with time zone",
        ),
        (
            [NAMES, f"ALTER TABLE user_licenses ALTER specialization_type TYPE specialization_name USING {CAST}"],
            "user_licenses.specialization_type was character varying and is specialization_name",
        ),
        (
            ["ALTER TABLE user_licenses ALTER current_level TYPE bigint"],
            "user_licenses.current_level was integer and is bigint",
        ),
        (MOVE, "user_licenses was public.user_licenses and is app.user_licenses"),
        (["DROP FUNCTION levelsync.curriculum_v1()"], "the functions do not exist"),
        (["COMMENT ON FUNCTION levelsync.curriculum_v1() IS 'ours'"], "it is not recorded for which tables"),
    ],
    ids=["with_time_zone", "enum", "bigint", "another_schema", "dropped", "no_comment"],
)
async def test_the_functions_are_created_again_where_the_tables_changed(
    database_url: str, settings: Settings, statements: list[str], said: str
) -> None:
    await live.execute(database_url, LEVELS, *statements)
    there = settings.model_copy(update={"database_url": SecretStr(database_url)})
    health, engine = Health(), make_engine(there)
    waiting = asyncio.create_task(wait_until_ready(engine, there, health))

    async def named() -> bool:
        assert said in str(health.by_component())
        return True

    await eventually(named)
    found = await live.asked(there, migrations)
    assert not found.passed
    assert said in found.detail
    assert found.advice == "Run: levelsync migrate"
    done = await live.run(database_url, "levelsync", "migrate")
    assert (done.returncode, "Created the stored functions again: " in done.stderr) == (0, True), done.stderr
    await asyncio.wait_for(waiting, 20)
    assert (await live.asked(there, migrations)).passed
    result = await ProgressLicenseSyncService(engine, there).sync_progress_to_license(1, "PLAYER")
    assert (result.action, result.after.license_level) == ("created", 5), result.message
    ages = await live.rows(
        database_url,
        "SELECT age(now() AT TIME ZONE 'UTC', advanced_at::timestamp) < '1 hour' FROM license_progressions",
    )
    assert ages == [(True,)]
    await engine.dispose()


async def test_columns_that_levelsync_does_not_use_change_nothing(database_url: str) -> None:
    await live.execute(
        database_url,
        "ALTER TABLE user_licenses ADD COLUMN tier text",
        "ALTER TABLE user_licenses ALTER specialization_type TYPE varchar(100)",
    )
    done = await live.run(database_url, "levelsync", "migrate")
    assert (done.returncode, "nothing to do" in done.stderr) == (0, True), done.stderr


PARTITIONED = (
    "ALTER TABLE license_progressions DROP CONSTRAINT license_progressions_user_license_id_fkey",
    "ALTER TABLE user_licenses RENAME TO licenses_before",
    """CREATE TABLE user_licenses (LIKE licenses_before INCLUDING DEFAULTS INCLUDING IDENTITY,
           PRIMARY KEY (id, specialization_type), UNIQUE (user_id, specialization_type))
       PARTITION BY LIST (specialization_type)""",
    "CREATE TABLE licenses_of_players PARTITION OF user_licenses FOR VALUES IN ('PLAYER')",
    "CREATE TABLE licenses_of_others PARTITION OF user_licenses DEFAULT",
    """CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           UPDATE user_licenses SET current_level = 4 WHERE id = NEW.id; RETURN NULL; END $$""",
    """CREATE TRIGGER act AFTER UPDATE ON licenses_of_players FOR EACH ROW WHEN (pg_trigger_depth() = 0)
           EXECUTE FUNCTION act()""",
)


ROWS = """
    INSERT INTO specialization_progress (student_id, specialization_id, current_level)
    VALUES (1, 'PLAYER', 5), (1, 'COACH', 5);
    INSERT INTO user_licenses (user_id, specialization_type, current_level, started_at)
    VALUES (1, 'PLAYER', 2, now()), (1, 'COACH', 2, now());
"""


async def test_a_trigger_of_one_partition_is_detected(database_url: str, settings: Settings) -> None:
    await live.execute(database_url, *PARTITIONED, ROWS)
    await live.upgrade(database_url)
    there = settings.model_copy(update={"database_url": SecretStr(database_url)})
    engine = make_engine(there)
    service = ProgressLicenseSyncService(engine, there)
    refused = await service.sync_progress_to_license(1, "PLAYER")
    assert (refused.success, "a trigger of the application changed" in refused.message) == (False, True)
    assert (await service.sync_progress_to_license(1, "COACH")).success
    levels = await live.rows(database_url, "SELECT specialization_type, current_level FROM user_licenses ORDER BY 1")
    assert levels == [("COACH", 5), ("PLAYER", 2)]
    await engine.dispose()
