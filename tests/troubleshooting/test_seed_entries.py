"""The seed's three troubles: each is created, `doctor` finds it, and the document's advice ends it."""

from __future__ import annotations

import logging
from functools import partial

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from service.cli.doctor import examine
from service.levels import LicenseSystemHelper
from service.settings import Settings
from tests.support import application
from tests.support.process import Result

NAME = "uq_specialization_progress_user_spec"
UNIQUE = f"ALTER TABLE specialization_progress ADD CONSTRAINT {NAME} UNIQUE (student_id, specialization_id)"
TWICE = """
    INSERT INTO specialization_progress (student_id, specialization_id, current_level, updated_at)
    VALUES (5, 'COACH', 2, '2025-01-02'), (5, 'COACH', 4, '2025-01-01'), (5, 'COACH', NULL, '2025-01-03')
"""
LEFT = "SELECT current_level FROM specialization_progress WHERE student_id = 5"


async def doctor(url: str) -> dict[str, tuple[str, str, str]]:
    """Run the checks of `levelsync doctor`; returns verdict, detail and advice of each."""
    settings = Settings(_env_file=None, database_url=url, kafka_bootstrap_servers="127.0.0.1:1", http_port=1)
    return {one.check: (one.verdict, one.detail, one.advice) for one in await examine(settings)}


async def migrate(url: str) -> Result:
    return await application.run(url, "levelsync", "migrate")


async def ask(url: str, name: str, *, after_an_error: bool = False) -> int:
    """Call the helper as the application does, with a session."""

    async def maximum(conn: AsyncConnection) -> int:
        async with AsyncSession(conn) as session:
            if after_an_error:
                with pytest.raises(DBAPIError, match="does not exist"):
                    await session.execute(text("SELECT no_such_column FROM users"))
            return await session.run_sync(partial(LicenseSystemHelper.get_specialization_max_level, name))

    return await application.asked(url, maximum)


async def test_a_constraint_that_is_there_already_is_left(empty_database_url: str) -> None:
    """Entry 1, as the user met it: the migration continues and reports the constraint."""
    await application.make_application(empty_database_url, UNIQUE)
    before = await doctor(empty_database_url)
    assert before["Migrations"][0] == "FAIL"
    assert before["Constraint's name"][:2] == ("PASS", f"the constraint is there already, as {NAME}: migrate leaves it")
    done = await migrate(empty_database_url)
    assert done.returncode == 0, done.stderr
    assert f"has {NAME} already: nothing to do" in done.stderr


@pytest.mark.parametrize(
    ("change", "undo", "said"),
    [
        (
            f"ALTER TABLE specialization_progress ADD CONSTRAINT {NAME} CHECK (id > 0)",
            f"ALTER TABLE specialization_progress DROP CONSTRAINT {NAME}",
            "the constraint CHECK ((id > 0))",
        ),
        (f"CREATE TABLE {NAME} (x int)", f"ALTER TABLE {NAME} RENAME TO something_else", "a relation of the kind r"),
    ],
    ids=["constraint", "table"],
)
async def test_a_name_that_something_else_has_is_found_and_given_free(
    empty_database_url: str, change: str, undo: str, said: str
) -> None:
    """Entry 1, where the name is taken: the migration stops with a sentence and changes nothing."""
    await application.make_application(empty_database_url, change)
    verdict, detail, advice = (await doctor(empty_database_url))["Constraint's name"]
    assert (verdict, said in detail) == ("FAIL", True), detail
    assert NAME in advice
    done = await migrate(empty_database_url)
    assert (done.returncode, f"needs {NAME}" in done.stderr) == (1, True), done.stderr
    await application.execute(empty_database_url, undo)
    assert (await doctor(empty_database_url))["Constraint's name"][0] == "PASS"
    assert (await migrate(empty_database_url)).returncode == 0


async def test_duplicate_records_are_found_and_cleaned(empty_database_url: str) -> None:
    """Entry 2: the highest level stays, NULL counts lowest, and removed rows are kept in a table."""
    await application.make_application(empty_database_url, TWICE)
    verdict, detail, advice = (await doctor(empty_database_url))["Duplicate progress records"]
    assert (verdict, detail) == ("FAIL", "user 5 has 3 in COACH")
    assert "levelsync migrate" in advice
    assert (await migrate(empty_database_url)).returncode == 0
    assert (await doctor(empty_database_url))["Duplicate progress records"][0] == "PASS"
    left = await application.rows(empty_database_url, LEFT)
    kept = await application.value(empty_database_url, "SELECT count(*) FROM levelsync.removed_rows")
    assert (left, kept) == ([(4,)], 2)


async def test_a_fallback_that_differs_from_the_database_is_found(database_url: str) -> None:
    """Entry 3: a call without a session returns the fallback."""
    await application.execute(
        database_url,
        "UPDATE specializations SET max_levels = 5 WHERE id = 'INTERNSHIP'",
        "INSERT INTO internship_levels (id, name, required_xp, required_sessions)"
        " VALUES (4, 'Lead', 40000, 26), (5, 'Principal', 50000, 30)",
    )
    assert LicenseSystemHelper.get_specialization_max_level("INTERNSHIP") == 3
    assert await ask(database_url, "INTERNSHIP") == 5
    found = await doctor(database_url)
    assert found["Level rows"][0] == "PASS"
    assert found["Max level sync"][:2] == ("FAIL", "INTERNSHIP is 5 in the DB and 3 in the Helper fallback")


async def test_a_query_that_fails_is_found_and_logged(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Entry 3: the helper returns the fallback and logs why. `doctor` shows PostgreSQL's message."""
    await application.execute(
        database_url,
        "UPDATE specializations SET max_levels = 11 WHERE id = 'PLAYER'",
        "ALTER TABLE specializations RENAME TO gone",
    )
    with caplog.at_level(logging.WARNING, "service.levels"):
        assert await ask(database_url, "PLAYER") == 8
    assert 'relation "specializations" does not exist' in caplog.text
    verdict, detail, advice = (await doctor(database_url))["Helper queries DB dynamically"]
    assert (verdict, "specializations" in detail) == ("FAIL", True), detail
    assert advice


async def test_a_column_that_is_gone_is_named(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entry 3: with the setting that replaces the column."""
    await application.execute(database_url, "ALTER TABLE specializations DROP COLUMN max_levels")
    verdict, detail, _ = (await doctor(database_url))["Specializations"]
    assert (verdict, "no column max_levels and LEVELSYNC_MAX_LEVELS is not set" in detail) == ("FAIL", True), detail
    monkeypatch.setenv("LEVELSYNC_MAX_LEVELS", '{"PLAYER": 9}')
    assert await ask(database_url, "PLAYER") == 9


async def test_a_session_whose_transaction_has_failed_gets_the_fallback(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Entry 3: the log contains the caller's error, which is the cause."""
    with caplog.at_level(logging.WARNING, "service.levels"):
        assert await ask(database_url, "INTERNSHIP", after_an_error=True) == 3
    assert "max_levels of 'INTERNSHIP' cannot be read" in caplog.text
