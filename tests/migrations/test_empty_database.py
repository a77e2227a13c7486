"""`alembic upgrade head` on a database in which nothing is."""

import re

import pytest

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


async def test_the_users_own_checks_in_psql_give_what_he_expects(empty_database_url: str) -> None:
    """3 levels, no duplicates, exactly the one constraint."""
    await application.upgrade(empty_database_url)
    levels = "SELECT max_levels FROM specializations WHERE id = 'INTERNSHIP'"
    assert await application.value(empty_database_url, levels) == 3
    assert await application.rows(empty_database_url, DUPLICATES) == []
    assert await application.rows(empty_database_url, CONSTRAINTS) == [("uq_specialization_progress_user_spec",)]


async def test_levels_are_seeded(empty_database_url: str) -> None:
    """Eight, eight and three levels, INTERNSHIP's by name."""
    await application.upgrade(empty_database_url)
    names = await application.rows(empty_database_url, "SELECT id, name FROM internship_levels ORDER BY id")
    assert names == [(1, "Junior"), (2, "Mid-level"), (3, "Senior")]
    for table, last in (("player_levels", (8, 250000, 30)), ("coach_levels", (8, 320000, 35))):
        query = f"SELECT id, required_xp, required_sessions FROM {table} ORDER BY id DESC"
        found = await application.rows(empty_database_url, query)
        assert (len(found), found[0]) == (8, last)


async def test_the_comment_on_internship_levels_is_the_users_text(empty_database_url: str) -> None:
    """Character for character, the line break included."""
    await application.upgrade(empty_database_url)
    assert await application.value(empty_database_url, "SELECT obj_description('internship_levels'::regclass)") == (
        "Startup Spirit Internship - 3 levels (Junior, Mid-level, Senior).\n"
        " Helper code MUST query DB dynamically, NOT use hardcoded max_levels=5."
    )


async def test_a_warning_names_host_and_database(empty_database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Who meant another database notices it."""
    await application.upgrade(empty_database_url)
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("WARNING")]
    host, database = re.fullmatch(r".*@(.*?)(?::\d+)?/(.*)", empty_database_url).groups()  # type: ignore[union-attr]
    assert len(warnings) == 1
    assert host in warnings[0]
    assert database in warnings[0]


@pytest.mark.parametrize("command", [("alembic", "upgrade", "head"), ("levelsync", "migrate")])
async def test_the_expected_log_lines_appear(empty_database_url: str, command: tuple[str, ...]) -> None:
    """Character for character, one after the other, whatever LOG_FORMAT."""
    done = await application.run(empty_database_url, *command, LEVELSYNC_LOG_FORMAT="json", LEVELSYNC_LOG_LEVEL="ERROR")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "Running upgrade" in line]
    assert tuple(lines[1:3]) == application.SEED_LINES


async def test_alembic_current_shows_where_the_database_stands(empty_database_url: str) -> None:
    """Nothing, then the user's revision, then the service's own; looking changes nothing."""
    assert (await application.run(empty_database_url, "alembic", "current")).stdout.strip() == ""
    assert await application.value(empty_database_url, "SELECT to_regnamespace('levelsync')") is None
    await application.run(empty_database_url, "alembic", "upgrade", "fix_internship_levels")
    assert (await application.run(empty_database_url, "alembic", "current")).stdout.strip() == "fix_internship_levels"
    await application.run(empty_database_url, "alembic", "upgrade", "head")
    assert (await application.run(empty_database_url, "alembic", "current")).stdout.strip() == f"{HEAD} (head)"


async def test_a_second_upgrade_changes_nothing(empty_database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing to do, nothing said."""
    await application.upgrade(empty_database_url)
    before = await application.structure(empty_database_url), await application.content(empty_database_url)
    capsys.readouterr()
    await application.upgrade(empty_database_url)
    assert "Running upgrade" not in capsys.readouterr().err
    assert (await application.structure(empty_database_url), await application.content(empty_database_url)) == before


async def test_every_revision_can_run_again_on_its_own_result(empty_database_url: str) -> None:
    """Also where the version table has forgotten that it ran."""
    await application.upgrade(empty_database_url)
    before = (
        await application.structure(empty_database_url),
        await application.structure(empty_database_url, "levelsync"),
    )
    await application.execute(empty_database_url, "DELETE FROM levelsync.alembic_version")
    await application.upgrade(empty_database_url)
    assert (
        await application.structure(empty_database_url),
        await application.structure(empty_database_url, "levelsync"),
    ) == before


async def test_offline_mode_is_refused_with_a_sentence(empty_database_url: str) -> None:
    """The migrations decide by what they find."""
    done = await application.run(empty_database_url, "alembic", "upgrade", "head", "--sql")
    assert done.returncode != 0
    assert "--sql cannot work here" in done.stderr + done.stdout


async def test_an_unknown_revision_is_named(empty_database_url: str) -> None:
    """A sentence, not a traceback."""
    assert "no_such_revision" in await application.refused(empty_database_url, "no_such_revision")
