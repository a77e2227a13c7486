"""The curriculum: highest levels and defaults, the seed's helper that reads them, and LEVELSYNC_MAX_LEVELS."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from service.faults import InstallationFault
from service.levels import Curriculum, LicenseSystemHelper, read_curriculum
from service.settings import Settings, SettingsError, load_settings
from service.store.application import configuration_faults
from service.store.engine import make_engine
from service.sync import ProgressLicenseSyncService
from tests.support import application
from tests.support.tables import execute, fill, licenses


def test_a_name_is_found_exactly_or_without_case() -> None:
    curriculum = Curriculum({"PLAYER": 8, "Coach": 3})
    found = [curriculum.canonical(name) for name in ("PLAYER", "player", "COACH", "coach")]
    assert found == ["PLAYER", "PLAYER", "Coach", "Coach"]
    assert curriculum.max_level("Coach") == 3


def test_an_unknown_name_has_no_canonical_form() -> None:
    curriculum = Curriculum({"PLAYER": 8})
    assert curriculum.canonical("GOALKEEPER") is None
    with pytest.raises(KeyError):
        curriculum.max_level("GOALKEEPER")


def test_a_name_that_cannot_be_used_is_known_and_its_maximum_is_a_fault() -> None:
    """Its events wait (law 4), because the name is known."""
    curriculum = Curriculum({"PLAYER": 8}, {"COACH": "why"})
    assert curriculum.canonical("coach") == "COACH"
    with pytest.raises(InstallationFault, match="why"):
        curriculum.max_level("COACH")


async def test_a_default_of_a_wrong_type_is_named_before_any_record(engine: AsyncEngine, settings: Settings) -> None:
    """Otherwise every new row would be refused as if its record were bad."""
    await execute(engine, "ALTER TABLE user_licenses ADD COLUMN fee integer NOT NULL DEFAULT 0")
    wrong = settings.model_copy(update={"license_defaults": {"fee": "much"}})
    right = settings.model_copy(update={"license_defaults": {"fee": "12"}})
    async with engine.connect() as conn:
        (sentence,) = await configuration_faults(conn, wrong)
        assert "LEVELSYNC_LICENSE_DEFAULTS" in sentence
        assert '"much"' in sentence
        assert await configuration_faults(conn, right) == []


@pytest.fixture
async def session(database_url: str) -> AsyncIterator[AsyncSession]:
    engine = make_engine(application.settings(database_url))
    async with AsyncSession(engine) as opened:
        yield opened
    await engine.dispose()


async def _ask(session: AsyncSession, name: str) -> int:
    return await session.run_sync(lambda sync: LicenseSystemHelper.get_specialization_max_level(name, sync))


async def test_the_database_is_the_source_of_truth(session: AsyncSession) -> None:
    await session.execute(text("UPDATE specializations SET max_levels = 11 WHERE id = 'INTERNSHIP'"))
    assert [await _ask(session, name) for name in ("INTERNSHIP", "internship", "Internship")] == [11, 11, 11]


async def test_a_name_that_the_database_writes_in_another_case_is_found(session: AsyncSession) -> None:
    insert = "INSERT INTO specializations (id, name, max_levels) VALUES ('Referee', 'R', 4), ('player', 'p', 2)"
    await session.execute(text(insert))
    assert [await _ask(session, name) for name in ("REFEREE", "player", "PLAYER")] == [4, 2, 8]


@pytest.mark.parametrize(
    ("name", "levels"), [("COACH", 8), ("player", 8), ("Internship", 3), ("GOALKEEPER", 1), ("", 1)]
)
def test_without_a_session_the_fallback_answers(name: str, levels: int) -> None:
    """The fallback has the levels of the application's own helper."""
    assert LicenseSystemHelper.get_specialization_max_level(name) == levels


async def test_a_missing_row_and_a_maximum_of_0_fall_back(session: AsyncSession) -> None:
    await session.execute(text("UPDATE specializations SET max_levels = 0 WHERE id = 'COACH'"))
    await session.execute(text("DELETE FROM specializations WHERE id = 'INTERNSHIP'"))
    assert [await _ask(session, name) for name in ("COACH", "INTERNSHIP", "GOALKEEPER")] == [8, 3, 1]


async def test_the_setting_answers_before_the_fallback(session: AsyncSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEVELSYNC_MAX_LEVELS", '{"player": 5, "COACH": 6, "LFA_COACH": 7}')
    await session.execute(text("UPDATE specializations SET max_levels = 0 WHERE id = 'COACH'"))
    assert [await _ask(session, name) for name in ("PLAYER", "COACH", "lfa_coach")] == [8, 6, 7]
    await session.execute(text("ALTER TABLE specializations DROP COLUMN max_levels"))
    assert [await _ask(session, name) for name in ("PLAYER", "INTERNSHIP", "x")] == [5, 3, 1]


async def test_a_failed_query_is_logged_and_undone(session: AsyncSession, caplog: pytest.LogCaptureFixture) -> None:
    """A savepoint keeps what the caller has done, and the session stays usable."""
    await session.execute(text("UPDATE users SET name = 'kept' WHERE id = 1"))
    await session.execute(text("ALTER TABLE specializations RENAME TO gone"))
    with caplog.at_level(logging.WARNING, "service.levels"):
        assert await _ask(session, "PLAYER") == 8
    assert "max_levels of 'PLAYER' cannot be read" in caplog.text
    assert await session.scalar(text("SELECT name FROM users WHERE id = 1")) == "kept"


async def test_a_session_that_cannot_be_used_at_all_falls_back() -> None:
    engine = make_engine(application.settings("postgresql://postgres@127.0.0.1:1/nothing"))
    async with AsyncSession(engine) as closed:
        assert await _ask(closed, "INTERNSHIP") == 3
    await engine.dispose()


REFEREE = "INSERT INTO specializations (id, name, max_levels, is_active) VALUES ('Referee', 'R', 4, false)"
DROPPED = "ALTER TABLE specializations DROP COLUMN max_levels"
COACH_IS_NULL = (
    "ALTER TABLE specializations ALTER COLUMN max_levels DROP NOT NULL",
    "UPDATE specializations SET max_levels = NULL WHERE id = 'COACH'",
)
NO_FOREIGN_KEY = (
    "ALTER TABLE specialization_progress DROP CONSTRAINT specialization_progress_specialization_id_fkey",
    "DELETE FROM specializations",
)
EMPTY = ("DELETE FROM specialization_progress", "DELETE FROM specializations")


def with_maxima(url: str, maxima: dict[str, int]) -> Settings:
    return application.settings(url).model_copy(update={"max_levels": maxima})


@asynccontextmanager
async def changed(url: str, maxima: dict[str, int], changes: Sequence[str]) -> AsyncIterator[AsyncConnection]:
    engine = make_engine(with_maxima(url, maxima))
    async with engine.connect() as conn:
        for change in changes:
            await conn.execute(text(change))
        yield conn
    await engine.dispose()


@pytest.mark.parametrize(
    ("changes", "maxima", "levels"),
    [
        ((), {}, {"PLAYER": 8, "COACH": 8, "INTERNSHIP": 3}),
        ((), {"player": 5}, {"PLAYER": 8, "COACH": 8, "INTERNSHIP": 3}),
        ((REFEREE,), {}, {"PLAYER": 8, "COACH": 8, "INTERNSHIP": 3, "Referee": 4}),
        ((DROPPED,), {"player": 5, "COACH": 6, "Internship": 7}, {"PLAYER": 5, "COACH": 6, "INTERNSHIP": 7}),
        (COACH_IS_NULL, {"COACH": 6, "PLAYER": 1}, {"PLAYER": 8, "COACH": 6, "INTERNSHIP": 3}),
        (NO_FOREIGN_KEY, {"LFA_COACH": 8, "GANCUJU_PLAYER": 7}, {"LFA_COACH": 8, "GANCUJU_PLAYER": 7}),
        ((*NO_FOREIGN_KEY, DROPPED), {"LFA_COACH": 8}, {"LFA_COACH": 8}),
    ],
)
async def test_the_database_wins_and_the_setting_fills_what_it_lacks(
    database_url: str, changes: Sequence[str], maxima: dict[str, int], levels: dict[str, int]
) -> None:
    """Where the column, the value or the row is missing. Case is ignored."""
    async with changed(database_url, maxima, changes) as conn:
        curriculum = await read_curriculum(conn)
    assert (curriculum.levels, curriculum.faults) == (levels, {})


@pytest.mark.parametrize(
    ("changes", "maxima", "named"),
    [
        ((DROPPED,), {}, "specializations has no column max_levels and LEVELSYNC_MAX_LEVELS is not set"),
        (EMPTY, {}, "the table specializations is empty and LEVELSYNC_MAX_LEVELS is not set"),
        (EMPTY, {"LFA_COACH": 8}, "specializations has no row LFA_COACH, which LEVELSYNC_MAX_LEVELS names, and "),
    ],
)
async def test_what_leaves_no_specialization_to_use_is_named(
    database_url: str, changes: Sequence[str], maxima: dict[str, int], named: str
) -> None:
    async with changed(database_url, maxima, changes) as conn:
        with pytest.raises(InstallationFault, match=named):
            await read_curriculum(conn)


@pytest.mark.parametrize(
    ("changes", "maxima", "named"),
    [
        (
            COACH_IS_NULL,
            {},
            "no highest level of COACH is known: specializations.max_levels is NULL and LEVELSYNC_MAX_LEVELS does not",
        ),
        (
            (DROPPED,),
            {"PLAYER": 8, "INTERNSHIP": 3},
            "no highest level of COACH is known: specializations has no max_levels and LEVELSYNC_MAX_LEVELS does not",
        ),
        (
            ("DELETE FROM specialization_progress", "DELETE FROM specializations WHERE id = 'COACH'"),
            {"COACH": 8},
            "specializations has no row COACH, which LEVELSYNC_MAX_LEVELS names, and specialization_progress has a ",
        ),
        (
            (
                "DELETE FROM specialization_progress",
                "DELETE FROM specializations WHERE id = 'INTERNSHIP'",
                "INSERT INTO specializations (id, name, max_levels) VALUES ('coach', 'c', 8), ('INTERNSHIP', 'I', 3)",
            ),
            {},
            "specializations has COACH and coach, which are one name apart from case",
        ),
    ],
)
async def test_one_specialization_without_a_maximum_stops_no_other(
    database_url: str, changes: Sequence[str], maxima: dict[str, int], named: str
) -> None:
    async with changed(database_url, maxima, changes) as conn:
        curriculum = await read_curriculum(conn)
        assert curriculum.levels["PLAYER"] == 8
        with pytest.raises(InstallationFault, match=named):
            curriculum.max_level("COACH")


async def test_a_sync_without_a_maximum_writes_nothing(engine: AsyncEngine) -> None:
    await execute(engine, *COACH_IS_NULL)
    await fill(engine, progress={(1, "COACH"): 2})
    result = await ProgressLicenseSyncService(engine).sync_progress_to_license(1, "coach")
    assert not result.success
    assert "no highest level of COACH is known" in result.message
    assert await licenses(engine) == {}


async def test_the_scan_and_the_list_of_issues_use_the_setting(database_url: str, engine: AsyncEngine) -> None:
    await execute(engine, DROPPED)
    await fill(engine, progress={(1, "COACH"): 5, (2, "COACH"): 6})
    configured = make_engine(with_maxima(database_url, {"COACH": 5, "PLAYER": 8, "INTERNSHIP": 3}))
    service = ProgressLicenseSyncService(configured)
    found = {issue.user_id: issue.issue_type async for issue in service.find_desync_issues()}
    await configured.dispose()
    assert found == {1: "missing_license", 2: "out_of_range"}


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("[]", "LEVELSYNC_MAX_LEVELS"),
        ("{", "max_levels"),
        ('{"PLAYER": 0}', "LEVELSYNC_MAX_LEVELS.PLAYER"),
        ('{"PLAYER": "8"}', "LEVELSYNC_MAX_LEVELS.PLAYER"),
        ('{"PLAYER": true}', "LEVELSYNC_MAX_LEVELS.PLAYER"),
        ('{"": 8}', "LEVELSYNC_MAX_LEVELS"),
        ('{"PLAYER": 8, "player": 7}', "PLAYER and player are one name apart from case"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(value: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEVELSYNC_MAX_LEVELS", value)
    with pytest.raises(SettingsError, match=named):
        load_settings()


async def test_migrate_works_without_the_column(empty_database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """INTERNSHIP's levels are skipped with a line. Without the setting, migrate refuses the database."""
    await application.make_application(empty_database_url, DROPPED)
    await application.refused(empty_database_url)
    await application.upgrade(empty_database_url, with_settings=with_maxima(empty_database_url, {"PLAYER": 8}))
    assert "There is no column specializations.max_levels: no number of levels is changed" in capsys.readouterr().err
