"""The checks of `doctor` and of the two scripts: each breaks when its condition is broken (R34)."""

import subprocess
import sys

import pytest

from service.checks import CURRICULUM, EDGE_CASES, INSTALLATION, Check, Checker, application_columns
from service.database.engine import make_engine
from service.levels import LicenseSystemHelper
from tests.migrations import live

ALL = {checker.__name__: checker for checker in (*EDGE_CASES, *CURRICULUM, *INSTALLATION)}
UNIQUE = "ALTER TABLE specialization_progress DROP CONSTRAINT uq_specialization_progress_user_spec"
TWICE = "INSERT INTO specialization_progress (student_id, specialization_id) VALUES (1, 'COACH'), (1, 'COACH')"


async def make(url: str, checker: Checker) -> Check:
    engine = make_engine(live.settings(url))
    try:
        async with engine.connect() as conn:
            return await checker(conn)
    finally:
        await engine.dispose()


@pytest.mark.parametrize("name", ALL)
async def test_a_migrated_database_passes(database_url: str, name: str) -> None:
    """All of them, with something to read and nothing to repair."""
    check = await make(database_url, ALL[name])
    assert check.passed, check
    assert check.detail
    assert not check.fix


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("max_level_sync", "UPDATE specializations SET max_levels = 5 WHERE id = 'INTERNSHIP'", "INTERNSHIP is 5"),
        ("max_level_sync", "DELETE FROM internship_levels WHERE id = 3", "2 level rows"),
        ("max_level_sync", "DELETE FROM specializations WHERE id = 'COACH'", "COACH is missing"),
        ("duplicate_progress", f"{UNIQUE}; {TWICE}", "user 1 has 2 in COACH"),
        ("duplicate_progress", UNIQUE, "no unique constraint"),
        ("helper_is_dynamic", "DELETE FROM specializations", "no specialization"),
        ("helper_is_dynamic", "ALTER TABLE specializations RENAME max_levels TO gone", "max_levels"),
        ("specializations", "UPDATE specializations SET max_levels = 7 WHERE id = 'PLAYER'", "PLAYER has max_levels 7"),
        ("specializations", "DELETE FROM specializations WHERE id = 'COACH'", "COACH is missing"),
        ("specializations", "DELETE FROM specializations", "is empty"),
        ("levels_match_rows", "DELETE FROM player_levels WHERE id = 8", "max_levels 8 and 7 level rows"),
        ("migrations", "DELETE FROM levelsync.alembic_version", "no schema of levelsync"),
        ("migrations", "UPDATE levelsync.alembic_version SET version_num = 'operate'", "stands at operate"),
        ("users", "TRUNCATE users CASCADE", "users is empty"),
        (
            "license_unique",
            "ALTER TABLE user_licenses DROP CONSTRAINT uq_user_licenses_user_specialization",
            "no unique index",
        ),
    ],
)
async def test_a_broken_condition_fails_its_check(database_url: str, name: str, change: str, said: str) -> None:
    """With what is wrong, and what to do."""
    await live.execute(database_url, change)
    check = await make(database_url, ALL[name])
    assert not check.passed
    assert said in check.detail
    assert check.fix


async def test_a_helper_that_does_not_ask_the_database_is_noticed(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault that all this began with."""
    monkeypatch.setattr(LicenseSystemHelper, "get_specialization_max_level", staticmethod(lambda _name, _db: 8))
    check = await make(database_url, ALL["helper_is_dynamic"])
    assert not check.passed
    assert "the helper says 8" in check.detail


async def test_a_check_leaves_no_trace(database_url: str) -> None:
    """What the check of the helper changes is rolled back, also where the caller commits."""
    before = await live.content(database_url)
    engine = make_engine(live.settings(database_url))
    async with engine.begin() as conn:
        assert (await ALL["helper_is_dynamic"](conn)).passed
    await engine.dispose()
    assert await live.content(database_url) == before


async def test_a_failed_check_does_not_spoil_the_next(database_url: str) -> None:
    """Although both share a transaction."""
    await live.execute(database_url, "ALTER TABLE specialization_progress RENAME TO gone")
    engine = make_engine(live.settings(database_url))
    async with engine.connect() as conn:
        assert not (await ALL["duplicate_progress"](conn)).passed
        assert (await ALL["max_level_sync"](conn)).passed
    await engine.dispose()


@pytest.mark.parametrize("name", ["max_level_sync", "specializations", "levels_match_rows"])
async def test_more_specializations_are_fine(database_url: str, name: str) -> None:
    """R9c: with a level table of their own or without."""
    await live.execute(
        database_url,
        "INSERT INTO specializations (id, name, max_levels) VALUES ('REFEREE', 'R', 2), ('SCOUT', 'S', 9)",
        "CREATE TABLE referee_levels (id int)",
        "INSERT INTO referee_levels VALUES (1), (2)",
    )
    assert (await make(database_url, ALL[name])).passed
    await live.execute(database_url, "INSERT INTO referee_levels VALUES (3)")
    assert (await make(database_url, ALL[name])).passed is (name == "specializations")


async def test_columns_that_nobody_fills_are_named(database_url: str) -> None:
    """R9b: with the variable that would fill them."""

    async def look() -> Check:
        return await make(database_url, lambda conn: application_columns(conn, live.settings(database_url)))

    assert (await look()).passed
    await live.execute(
        database_url,
        "TRUNCATE user_licenses CASCADE",
        "ALTER TABLE user_licenses ADD currency char(3) NOT NULL",
    )
    found = await look()
    assert not found.passed
    assert "user_licenses.currency" in found.detail
    await live.execute(database_url, "ALTER TABLE specializations DROP max_levels")
    assert "no column max_levels and LEVELSYNC_MAX_LEVELS is not set" in (await look()).detail


SCRIPTS = {
    "test_edge_cases.py": ("Max level sync", "Duplicate progress records", "Helper queries DB dynamically"),
    "test_curriculum_structure.py": ("Specializations", "Level rows"),
}


@pytest.mark.parametrize("script", SCRIPTS)
async def test_a_script_prints_a_line_a_check_and_exits_0_or_1(database_url: str, script: str) -> None:
    """R34: the user's lines, with PASS or FAIL."""
    done = await live.run(database_url, "python", f"scripts/{script}")
    assert done.returncode == 0, done.stderr
    assert [line.split(" (")[0] for line in done.stdout.splitlines()] == [
        f"✅ {name}: PASS" for name in SCRIPTS[script]
    ]
    await live.execute(database_url, UNIQUE, "DELETE FROM coach_levels")
    done = await live.run(database_url, "python", f"scripts/{script}")
    assert done.returncode == 1
    assert "❌ " in done.stdout
    assert ": FAIL (" in done.stdout


async def test_a_script_without_a_database_says_so() -> None:
    """A sentence, exit 1."""
    done = await live.run("postgresql://postgres@127.0.0.1:1/nothing", "python", "scripts/test_edge_cases.py")
    assert done.returncode == 1
    assert done.stderr.startswith("The database cannot be checked")
    assert "Traceback" not in done.stderr


def test_pytest_takes_no_script_for_a_test() -> None:
    """They have the user's names, which begin with `test_`."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "scripts", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=live.ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - fixed
    assert "no tests" in done.stdout
