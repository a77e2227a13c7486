"""The checks of `doctor` and of the two scripts fail when their condition is broken."""

import re
import runpy
import uuid

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from service.checks import CURRICULUM, EDGE_CASES, INSTALLATION, Finding, Verdict, application_columns
from service.checks.curriculum import falling_levels
from service.levels import LicenseSystemHelper
from service.settings import load_settings
from service.store.engine import make_engine
from tests.support import application
from tests.support.repository import ROOT

ALL = {checker.__name__: checker for checker in (*EDGE_CASES, *CURRICULUM, *INSTALLATION)}
UNIQUE = "ALTER TABLE specialization_progress DROP CONSTRAINT uq_specialization_progress_user_spec"
NULLABLE = "ALTER TABLE specializations ALTER max_levels DROP NOT NULL"
TWICE = "INSERT INTO specialization_progress (student_id, specialization_id) VALUES (1, 'COACH'), (1, 'COACH')"


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("max_level_sync", "UPDATE specializations SET max_levels = 5 WHERE id = 'INTERNSHIP'", "INTERNSHIP is 5"),
        ("max_level_sync", "DELETE FROM internship_levels WHERE id = 3", "2 level rows"),
        ("duplicate_progress", f"{UNIQUE}; {TWICE}", "user 1 has 2 in COACH"),
        ("duplicate_progress", UNIQUE, "no unique constraint"),
        ("helper_is_dynamic", "ALTER TABLE specializations RENAME TO gone", "specializations"),
        ("specializations", "UPDATE specializations SET max_levels = 0 WHERE id = 'PLAYER'", "PLAYER is 0: no event"),
        ("specializations", "ALTER TABLE specializations DROP max_levels", "LEVELSYNC_MAX_LEVELS is not set"),
        (
            "specializations",
            f"{NULLABLE}; UPDATE specializations SET max_levels = NULL WHERE id = 'COACH'",
            "no highest level of COACH is known: specializations.max_levels is NULL",
        ),
        ("levels_match_rows", "DELETE FROM player_levels WHERE id = 8", "max_levels 8 and 7 level rows"),
        ("migrations", "DELETE FROM levelsync.alembic_version", "no schema of levelsync"),
        ("migrations", "UPDATE levelsync.alembic_version SET version_num = 'operate'", "at revision operate"),
        ("users", "TRUNCATE users CASCADE", "users is empty"),
        (
            "license_unique",
            "ALTER TABLE user_licenses DROP CONSTRAINT uq_user_licenses_user_specialization",
            "no unique index",
        ),
    ],
)
async def test_a_broken_condition_fails_its_check(database_url: str, name: str, change: str, said: str) -> None:
    await application.execute(database_url, change)
    check = await application.asked(database_url, ALL[name])
    assert not check.passed
    assert said in check.detail
    assert check.advice or "levelsync migrate" in check.detail
    assert not re.search("missing rows|[Ww]rite|[Ii]nsert", check.advice)


async def test_a_helper_that_ignores_the_database_fails(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LicenseSystemHelper, "get_specialization_max_level", staticmethod(lambda _name, _db: 8))
    check = await application.asked(database_url, ALL["helper_is_dynamic"])
    assert not check.passed
    assert "the helper returns 8" in check.detail


async def test_a_migrated_database_passes_every_check_without_a_write_or_a_lock(database_url: str) -> None:
    """A role that may only read runs every check while a transaction locks out all writers."""
    role = f"looks_only_{uuid.uuid4().hex}"
    await application.execute(
        database_url,
        f"CREATE ROLE {role}",
        f"GRANT USAGE ON SCHEMA public, levelsync TO {role}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public, levelsync TO {role}",
    )
    engine = make_engine(application.settings(database_url))
    tables = await application.value(
        database_url, "SELECT string_agg(tablename, ', ') FROM pg_tables WHERE schemaname = 'public'"
    )
    async with application.connected(database_url) as other, other.transaction(), engine.begin() as conn:
        await other.execute(f"LOCK TABLE {tables} IN EXCLUSIVE MODE NOWAIT")
        await conn.execute(text(f"SET LOCAL ROLE {role}"))
        for checker in (*ALL.values(), falling_levels):
            found = await checker(conn)
            assert found.passed, found
            assert found.detail
            assert not found.advice
            assert await conn.scalar(text("SELECT to_regclass('pg_temp.specializations') IS NULL"))
    await engine.dispose()
    await application.execute(database_url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def test_names_that_only_the_fallback_has_are_a_note(database_url: str) -> None:
    await application.execute(
        database_url,
        "DELETE FROM specialization_progress",
        "UPDATE specializations SET id = 'LFA_COACH' WHERE id = 'COACH'",
        "DELETE FROM specializations WHERE id = 'PLAYER'",
    )
    checks = {name: await application.asked(database_url, ALL[name]) for name in ("max_level_sync", "specializations")}
    assert {name: (check.passed, check.detail) for name, check in checks.items()} == {
        "max_level_sync": (
            True,
            "INTERNSHIP now 3 in both DB and Helper fallback; note: only the Helper fallback has COACH, PLAYER",
        ),
        "specializations": (True, "INTERNSHIP 3, LFA_COACH 8"),
    }


async def test_the_setting_replaces_a_missing_value(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value in the database counts, and the difference is shown. Empty level tables are not compared."""
    monkeypatch.setenv("LEVELSYNC_MAX_LEVELS", '{"COACH": 7, "PLAYER": 8}')

    async def look(name: str) -> tuple[bool, str]:
        with_maxima = load_settings().model_copy(update={"database_url": SecretStr(database_url)})
        check = await application.asked(with_maxima, ALL[name])
        return check.passed, check.detail

    differs = "COACH 8 (LEVELSYNC_MAX_LEVELS has 7, which the database overrides), INTERNSHIP 3, PLAYER 8"
    assert await look("specializations") == (True, differs)
    await application.execute(
        database_url,
        "ALTER TABLE specializations DROP max_levels",
        "DELETE FROM coach_levels WHERE id = 8",
        "DELETE FROM player_levels",
        "DELETE FROM specialization_progress WHERE specialization_id = 'INTERNSHIP'",
        "DELETE FROM specializations WHERE id = 'INTERNSHIP'",
    )
    taken = "COACH 7 (from LEVELSYNC_MAX_LEVELS), PLAYER 8 (from LEVELSYNC_MAX_LEVELS)"
    assert await look("specializations") == (True, taken)
    assert await look("levels_match_rows") == (True, "max_levels equals the level rows of COACH")
    follows = "the helper returns the database's maximum of COACH, PLAYER, and follows a change"
    assert await look("helper_is_dynamic") == (True, follows)


@pytest.mark.parametrize(
    ("change", "warns"),
    [
        ("UPDATE user_licenses SET current_level = 1", True),
        ("UPDATE user_licenses SET current_level = 1 WHERE user_id <= 4", False),
        ("UPDATE license_progressions SET to_level = 1, from_level = 2, advancement_reason = 'Synced'", True),
        ("UPDATE license_progressions SET to_level = 1, from_level = 2, advancement_reason = 'sync highest'", False),
        ("UPDATE license_progressions SET advanced_at = now() - interval '8 days', to_level = 3", False),
    ],
)
async def test_levels_that_somebody_else_lowers_are_a_warning(database_url: str, change: str, warns: bool) -> None:
    """Many licenses below their history suggest another synchroniser. A few may be decisions of people."""
    await application.execute(
        database_url,
        "TRUNCATE user_licenses CASCADE",
        "INSERT INTO user_licenses (id, user_id, specialization_type, current_level, started_at)"
        " SELECT i, i, 'PLAYER', 2, now() FROM generate_series(1, 6) i",
        "INSERT INTO license_progressions (user_license_id, from_level, to_level, advancement_reason, advanced_at)"
        " SELECT i, 1, 2, 'ProgressLeveledUp /app ' || i, now() FROM generate_series(1, 6) i",
    )
    assert (await application.asked(database_url, falling_levels)).verdict is Verdict.PASS
    if "to_level = 1" in change:
        await application.execute(database_url, "UPDATE user_licenses SET current_level = 1")
    await application.execute(database_url, change)
    check = await application.asked(database_url, falling_levels)
    assert check.verdict is (Verdict.WARN if warns else Verdict.PASS)
    assert ("user 6 in PLAYER from 2 to 1" in check.detail, "auto_sync_all" in check.advice) == (warns, warns)


async def test_a_failed_check_does_not_spoil_the_next(database_url: str) -> None:
    await application.execute(database_url, "ALTER TABLE specialization_progress RENAME TO gone")
    engine = make_engine(application.settings(database_url))
    async with engine.connect() as conn:
        assert not (await ALL["duplicate_progress"](conn)).passed
        assert (await ALL["max_level_sync"](conn)).passed
    await engine.dispose()


async def test_additional_specializations_pass(database_url: str) -> None:
    async def passed() -> dict[str, bool]:
        names = ("max_level_sync", "specializations", "levels_match_rows")
        return {name: (await application.asked(database_url, ALL[name])).passed for name in names}

    await application.execute(
        database_url,
        "INSERT INTO specializations (id, name, max_levels) VALUES ('REFEREE', 'R', 2), ('SCOUT', 'S', 9)",
        "CREATE TABLE referee_levels (id int)",
        "INSERT INTO referee_levels VALUES (1), (2)",
    )
    assert await passed() == {"max_level_sync": True, "specializations": True, "levels_match_rows": True}
    await application.execute(database_url, "INSERT INTO referee_levels VALUES (3)")
    assert await passed() == {"max_level_sync": False, "specializations": True, "levels_match_rows": False}


async def test_required_columns_without_a_value_are_named(database_url: str) -> None:
    async def look() -> Finding:
        return await application.asked(
            database_url, lambda conn: application_columns(conn, application.settings(database_url))
        )

    assert (await look()).passed
    await application.execute(
        database_url,
        "TRUNCATE user_licenses CASCADE",
        "ALTER TABLE user_licenses ADD currency char(3) NOT NULL",
    )
    found = await look()
    assert not found.passed
    assert "user_licenses has columns" in found.detail
    assert "currency (character(3))" in found.detail
    await application.execute(database_url, "ALTER TABLE specializations DROP max_levels")
    assert "no column max_levels and LEVELSYNC_MAX_LEVELS is not set" in (await look()).detail


SCRIPTS = {
    "test_edge_cases.py": ("Max level sync", "Duplicate progress records", "Helper queries DB dynamically"),
    "test_curriculum_structure.py": ("Specializations", "Level rows"),
}


@pytest.mark.parametrize("script", SCRIPTS)
async def test_a_script_prints_a_line_a_check_and_exits_0_or_1(database_url: str, script: str) -> None:
    done = await application.run(database_url, f"scripts/{script}")
    assert done.returncode == 0, done.stderr
    assert [line.split(" (")[0] for line in done.stdout.splitlines()] == [
        f"✅ {name}: PASS" for name in SCRIPTS[script]
    ]
    await application.execute(database_url, UNIQUE, "DELETE FROM coach_levels WHERE id > 2")
    done = await application.run(database_url, f"scripts/{script}")
    assert done.returncode == 1
    assert "❌ " in done.stdout
    assert ": FAIL (" in done.stdout


async def test_a_script_without_a_database_exits_with_a_sentence() -> None:
    done = await application.run("postgresql://postgres@127.0.0.1:1/nothing", "python", "scripts/test_edge_cases.py")
    assert done.returncode == 1
    assert done.stderr.startswith("The database cannot be checked")
    assert "Traceback" not in done.stderr


def test_pytest_finds_no_test_in_the_scripts() -> None:
    scripts = sorted((ROOT / "scripts").glob("test_*.py"))
    assert [script.name for script in scripts] == ["test_curriculum_structure.py", "test_edge_cases.py"]
    names = [name for script in scripts for name in runpy.run_path(str(script), run_name="collected")]
    assert not [name for name in names if name.startswith(("test", "Test"))]
