"""The revision license_unique: one license for each pair, and references follow."""

import json
import time

import pytest

from tests.support import application

NAME = "uq_user_licenses_user_specialization"
REVISION = "license_unique"
DUPLICATES = """
    INSERT INTO user_licenses (id, user_id, specialization_type, current_level, started_at)
    VALUES (101, 5, 'COACH', 2, '2025-01-01'), (102, 5, 'COACH', 4, '2025-02-01'),
           (103, 5, 'COACH', 4, '2025-03-01'), (104, 6, 'COACH', 1, '2025-01-01')
"""
TWO_COLUMNS = """
    ALTER TABLE user_licenses ADD UNIQUE (id, user_id);
    CREATE TABLE badges (license int, owner int DEFAULT 5,
        FOREIGN KEY (license, owner) REFERENCES user_licenses (id, user_id))
"""


async def _left(url: str) -> list[tuple[object, ...]]:
    return await application.rows(url, "SELECT id FROM user_licenses WHERE id > 100 ORDER BY id")


async def test_the_highest_level_then_the_oldest_id_stays(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An upsert works afterwards."""
    await application.make_application(url, DUPLICATES)
    await application.upgrade(url, REVISION)
    assert await _left(url) == [(102,), (104,)]
    assert "ids: 101, 103" in capsys.readouterr().err
    kept = await application.rows(url, "SELECT row_id, row FROM levelsync.removed_rows ORDER BY row_id")
    assert [row_id for row_id, _ in kept] == [101, 103]
    assert json.loads(kept[0][1])["started_at"].startswith("2025-01-01")
    assert f"{NAME} UNIQUE (user_id, specialization_type)" in await application.structure(url)
    await application.execute(
        url,
        "INSERT INTO user_licenses (user_id, specialization_type, started_at) VALUES (5, 'COACH', now())"
        " ON CONFLICT (user_id, specialization_type) DO NOTHING",
    )
    assert await _left(url) == [(102,), (104,)]


async def test_every_reference_to_a_license_follows_the_kept_one(url: str) -> None:
    """In other schemas and between licenses too, and whatever the reference does on delete."""
    await application.make_application(
        url,
        DUPLICATES,
        "ALTER TABLE user_licenses ADD parent int REFERENCES user_licenses",
        "UPDATE user_licenses SET parent = 101 WHERE id = 104",
        "INSERT INTO license_progressions (user_license_id, from_level, to_level)"
        " VALUES (101, 1, 2), (102, 1, 4), (103, 3, 4), (104, 0, 1)",
        "CREATE SCHEMA billing",
        'CREATE TABLE billing."Odd Name" (n int, "The License" int REFERENCES public.user_licenses ON DELETE CASCADE)',
        'INSERT INTO billing."Odd Name" VALUES (1, 101), (2, NULL)',
        "CREATE TABLE exams (id int, license int REFERENCES user_licenses ON DELETE SET NULL"
        " DEFERRABLE INITIALLY DEFERRED)",
        "INSERT INTO exams VALUES (1, 103)",
    )
    await application.upgrade(url, REVISION)
    history = "SELECT user_license_id, to_level FROM license_progressions ORDER BY id"
    assert await application.rows(url, history) == [(102, 2), (102, 4), (102, 4), (104, 1)]
    assert await application.rows(url, 'SELECT * FROM billing."Odd Name" ORDER BY n') == [(1, 102), (2, None)]
    assert await application.rows(url, "SELECT * FROM exams") == [(1, 102)]
    assert await application.value(url, "SELECT parent FROM user_licenses WHERE id = 104") == 102
    assert "for_a_while" not in await application.structure(url, "billing")


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE badges (license int UNIQUE REFERENCES user_licenses)",
        "CREATE TABLE badges (license int CHECK (license <> 102) REFERENCES user_licenses)",
        TWO_COLUMNS,
    ],
    ids=["unique", "check", "two columns"],
)
async def test_a_refused_change_of_references_stops_before_any_change(url: str, change: str) -> None:
    rows = "INSERT INTO badges (license) VALUES (101), (103)"
    await application.make_application(url, DUPLICATES, change, rows)
    await application.upgrade(url, "levelsync_schema")
    before = await application.state(url)
    sentence = await application.refused(url)
    assert "badges" in sentence
    assert "(5, COACH)" in sentence
    assert "(6, COACH)" not in sentence
    assert await application.state(url) == before
    assert await application.value(url, "SELECT count(*) FROM levelsync.removed_rows") == 0


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ("UPDATE user_licenses SET instructor_notes = 'good' WHERE id = 101", "instructor_notes"),
        ("UPDATE user_licenses SET paid = true WHERE id = 102", "paid"),
    ],
)
async def test_duplicates_that_differ_in_a_column_that_is_not_ours_stop(url: str, change: str, column: str) -> None:
    """levelsync cannot know which value is right."""
    await application.make_application(url, DUPLICATES, change)
    sentence = await application.refused(url)
    assert f"(5, COACH) in {column}" in sentence
    assert len(await _left(url)) == 4


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE user_licenses ADD CONSTRAINT mine UNIQUE (user_id, specialization_type)",
        "CREATE UNIQUE INDEX mine ON user_licenses (specialization_type, user_id)",
    ],
)
async def test_a_unique_index_of_any_name_is_enough(url: str, change: str, capsys: pytest.CaptureFixture[str]) -> None:
    await application.make_application(url, change)
    before = [line for line in (await application.structure(url)).splitlines() if "user_licenses" in line]
    await application.upgrade(url, REVISION)
    assert "user_licenses is unique by mine already" in capsys.readouterr().err
    await application.downgrade(url)
    after = [line for line in (await application.structure(url)).splitlines() if "user_licenses" in line]
    assert after == before


async def test_a_hundred_thousand_rows_of_each_table_take_seconds(url: str) -> None:
    """Half of them are duplicates, and the tables that refer to them have no index."""
    await application.make_application(
        url,
        "INSERT INTO users (id, name) SELECT i, 'many' FROM generate_series(1000, 50999) i",
        "INSERT INTO specialization_progress (student_id, specialization_id, current_level)"
        " SELECT 1000 + i % 50000, 'PLAYER', 1 + i / 50000 FROM generate_series(0, 99999) i",
        "CREATE TABLE badges (progress_id int REFERENCES specialization_progress)",
        "INSERT INTO badges SELECT id FROM specialization_progress",
        "INSERT INTO user_licenses (user_id, specialization_type, current_level, started_at)"
        " SELECT 1000 + i % 50000, 'PLAYER', 1 + i / 50000, now() FROM generate_series(0, 99999) i",
        "INSERT INTO license_progressions (user_license_id, from_level, to_level)"
        " SELECT id, 0, current_level FROM user_licenses",
    )
    began = time.monotonic()
    await application.upgrade(url, REVISION)
    assert time.monotonic() - began < 30
    for table, user in (("specialization_progress", "student_id"), ("user_licenses", "user_id")):
        found = f"SELECT count(*), min(current_level) FROM {table} WHERE {user} >= 1000"
        assert await application.rows(url, found) == [(50000, 2)]
        removed = f"SELECT count(*) FROM levelsync.removed_rows WHERE table_name = '{table}'"
        assert await application.value(url, removed) == 50000
    orphans = "SELECT count(DISTINCT user_license_id) FROM license_progressions"
    assert await application.value(url, orphans) == 50001
    assert "for_a_while" not in await application.structure(url)
