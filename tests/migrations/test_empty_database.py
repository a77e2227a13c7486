"""An empty database: all revisions, up and down, and the sample users."""

import re

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.cli.servers import sample_users
from service.store.schema import HEAD
from tests.support import application

CONSTRAINTS = """
    SELECT conname FROM pg_constraint
     WHERE conrelid = 'specialization_progress'::regclass AND contype = 'u'
"""
DUPLICATES = """
    SELECT student_id, specialization_id, COUNT(*) FROM specialization_progress
     GROUP BY student_id, specialization_id HAVING COUNT(*) > 1
"""


async def test_the_users_own_checks_in_psql_give_what_he_expects(database_url: str) -> None:
    levels = "SELECT max_levels FROM specializations WHERE id = 'INTERNSHIP'"
    assert await application.value(database_url, levels) == 3
    assert await application.rows(database_url, DUPLICATES) == []
    assert await application.rows(database_url, CONSTRAINTS) == [("uq_specialization_progress_user_spec",)]


async def test_levels_are_seeded(database_url: str) -> None:
    names = await application.rows(database_url, "SELECT id, name FROM internship_levels ORDER BY id")
    assert names == [(1, "Junior"), (2, "Mid-level"), (3, "Senior")]
    for table, last in (("player_levels", (8, 250000, 30)), ("coach_levels", (8, 320000, 35))):
        query = f"SELECT id, required_xp, required_sessions FROM {table} ORDER BY id DESC"
        found = await application.rows(database_url, query)
        assert (len(found), found[0]) == (8, last)


async def test_the_comment_on_internship_levels_is_the_users_text(database_url: str) -> None:
    assert await application.value(database_url, "SELECT obj_description('internship_levels'::regclass)") == (
        "Startup Spirit Internship - 3 levels (Junior, Mid-level, Senior).\n"
        " Helper code MUST query DB dynamically, NOT use hardcoded max_levels=5."
    )


async def test_a_warning_names_host_and_database(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    await application.upgrade(url)
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("WARNING")]
    host, database = re.fullmatch(r".*@(.*?)(?::\d+)?/(.*)", url).groups()  # type: ignore[union-attr]
    assert len(warnings) == 1
    assert host in warnings[0]
    assert database in warnings[0]


@pytest.mark.parametrize("command", [("alembic", "upgrade", "head"), ("levelsync", "migrate")])
async def test_the_expected_log_lines_appear(url: str, command: tuple[str, ...]) -> None:
    done = await application.run(url, *command, LEVELSYNC_LOG_FORMAT="json", LEVELSYNC_LOG_LEVEL="ERROR")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    lines = [line for line in done.stderr.splitlines() if "Running upgrade" in line]
    assert tuple(lines[1:3]) == application.SEED_LINES


async def test_alembic_current_shows_the_revision(url: str) -> None:
    assert (await application.run(url, "alembic", "current")).stdout.strip() == ""
    assert await application.value(url, "SELECT to_regnamespace('levelsync')") is None
    await application.run(url, "alembic", "upgrade", "fix_internship_levels")
    assert (await application.run(url, "alembic", "current")).stdout.strip() == "fix_internship_levels"
    await application.run(url, "alembic", "upgrade", "head")
    assert (await application.run(url, "alembic", "current")).stdout.strip() == f"{HEAD} (head)"


async def test_a_second_upgrade_changes_nothing(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = await application.state(database_url)
    await application.upgrade(database_url)
    assert "Running upgrade" not in capsys.readouterr().err
    assert await application.state(database_url) == before


async def test_every_revision_can_run_again_on_its_own_result(database_url: str) -> None:
    """Even where the version table was emptied."""
    before = [await application.structure(database_url, schema) for schema in ("public", "levelsync")]
    await application.execute(database_url, "DELETE FROM levelsync.alembic_version")
    await application.upgrade(database_url)
    assert [await application.structure(database_url, schema) for schema in ("public", "levelsync")] == before


async def test_an_upgrade_replaces_the_comments_of_an_earlier_release(url: str) -> None:
    await application.upgrade(url, "quicker_functions")
    comment = await application.value(url, "SELECT obj_description('levelsync.pairs'::regclass)")
    await application.execute(url, "COMMENT ON VIEW levelsync.pairs IS 'an earlier text'")
    await application.upgrade(url)
    assert await application.value(url, "SELECT obj_description('levelsync.pairs'::regclass)") == comment


async def test_offline_mode_is_refused_with_a_sentence(url: str) -> None:
    """The migrations depend on the rows that they find."""
    done = await application.run(url, "alembic", "upgrade", "head", "--sql")
    assert done.returncode != 0
    assert "--sql cannot work here" in done.stderr + done.stdout


async def test_the_sample_users_have_tables_that_agree(database_url: str) -> None:
    roles = "SELECT role::text, min(id), max(id) FROM users GROUP BY 1 ORDER BY 2"
    assert await application.rows(database_url, roles) == [("admin", 1, 1), ("instructor", 2, 2), ("student", 3, 200)]
    disagree = """
        SELECT count(*) FROM specialization_progress p
          FULL JOIN user_licenses l ON l.user_id = p.student_id AND l.specialization_type = p.specialization_id
          LEFT JOIN specializations s ON s.id = p.specialization_id
         WHERE p.current_level IS DISTINCT FROM l.current_level OR p.current_level NOT BETWEEN 1 AND s.max_levels
    """
    assert await application.value(database_url, disagree) == 0
    names = "SELECT count(DISTINCT specialization_id) FROM specialization_progress"
    assert await application.value(database_url, names) == 3


async def test_sample_users_are_created_only_where_there_is_no_user(database_url: str) -> None:
    async def created(conn: AsyncConnection) -> tuple[bool, int | None]:
        return await sample_users(conn), await conn.scalar(text("SELECT count(*) FROM users"))

    one_user = "INSERT INTO users (name, email) VALUES ('A', 'a@x.org')"
    await application.execute(database_url, "TRUNCATE users CASCADE", one_user)
    assert await application.asked(database_url, created) == (False, 1)
    await application.execute(database_url, "TRUNCATE users CASCADE")
    assert await application.asked(database_url, created) == (True, 200)


async def test_the_next_user_gets_the_next_id(database_url: str) -> None:
    insert = "INSERT INTO users (name, email) VALUES ('A', 'a@x') RETURNING id"
    assert await application.value(database_url, insert) == 201


PROGRESS = """
    INSERT INTO specialization_progress (id, student_id, specialization_id, current_level)
    VALUES (101, 5, 'COACH', 1), (102, 5, 'COACH', 2)
"""


@pytest.mark.parametrize(("change", "stays"), [(PROGRESS, True), ("SELECT 1", False)])
async def test_down_and_up_again_leaves_the_applications_tables_untouched(url: str, change: str, stays: bool) -> None:
    """Removed rows outlive the downgrade, because they are the only copy. An empty table is dropped."""
    await application.make_application(url, change)
    before = await application.structure(url)
    await application.upgrade(url)
    structure, content = await application.state(url)
    await application.downgrade(url)
    assert await application.state(url) == (before, content)
    left = await application.rows(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'levelsync' ORDER BY 1")
    assert left == [("alembic_version",), *([("removed_rows",)] if stays else [])]
    await application.upgrade(url)
    assert await application.state(url) == (structure, content)


async def test_a_downgrade_never_drops_a_table_of_the_application(database_url: str) -> None:
    """Not even one that the base revision created."""
    before = await application.content(database_url)
    await application.downgrade(database_url)
    assert await application.content(database_url) == before
    await application.upgrade(database_url)
    assert await application.content(database_url) == before
