"""`levelsync migrate`."""

import asyncpg

from tests.support.process import levelsync


def test_alembic_says_on_stderr_what_it_does(empty_database_url: str) -> None:
    """Its own lines in its own format, whatever LOG_FORMAT says; a second run has nothing to do."""
    env = {"LEVELSYNC_DATABASE_URL": empty_database_url, "LEVELSYNC_LOG_FORMAT": "json"}
    run = levelsync("migrate", env=env)
    assert (run.returncode, run.stdout) == (0, "")
    line = "INFO  [alembic.runtime.migration] Running upgrade unique_progress_constraint -> fix_internship_levels, "
    assert line in run.stderr
    again = levelsync("migrate", env=env)
    assert again.returncode == 0
    assert "Running upgrade" not in again.stderr


def test_a_revision_can_be_named(empty_database_url: str) -> None:
    """The seed's own first two revisions, and no further."""
    env = {"LEVELSYNC_DATABASE_URL": empty_database_url}
    run = levelsync("migrate", "--revision", "fix_internship_levels", env=env)
    assert run.returncode == 0
    assert "levelsync_schema" not in run.stderr


async def test_a_migration_that_stops_is_exit_1_with_its_sentence(empty_database_url: str) -> None:
    """A database of the application that lacks a table is named, not repaired."""
    conn = await asyncpg.connect(empty_database_url)
    await conn.execute("CREATE TABLE users (id int PRIMARY KEY)")
    await conn.close()
    run = levelsync("migrate", env={"LEVELSYNC_DATABASE_URL": empty_database_url})
    assert run.returncode == 1
    assert "specializations" in run.stderr
    assert "Traceback" not in run.stderr
