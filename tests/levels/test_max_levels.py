"""LEVELSYNC_MAX_LEVELS is used where the database has no highest level."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.faults import InstallationFault
from service.levels import read_curriculum
from service.settings import Settings, SettingsError, load_settings
from service.store.engine import make_engine
from service.sync import ProgressLicenseSyncService
from tests.support import application

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
async def test_one_specialization_without_a_maximum_is_a_fault_of_its_own(
    database_url: str, changes: Sequence[str], maxima: dict[str, int], named: str
) -> None:
    async with changed(database_url, maxima, changes) as conn:
        curriculum = await read_curriculum(conn)
        assert curriculum.levels["PLAYER"] == 8
        with pytest.raises(InstallationFault, match=named):
            curriculum.max_level("COACH")


async def test_a_sync_of_a_specialization_without_a_maximum_says_so_and_writes_nothing(database_url: str) -> None:
    engine = make_engine(application.settings(database_url))
    await application.execute(
        database_url, *COACH_IS_NULL, "DELETE FROM user_licenses", "DELETE FROM specialization_progress",
        "INSERT INTO specialization_progress (student_id, specialization_id, current_level) VALUES (1, 'COACH', 2)",
    )  # fmt: skip
    result = await ProgressLicenseSyncService(engine).sync_progress_to_license(1, "coach")
    await engine.dispose()
    assert not result.success
    assert "no highest level of COACH is known" in result.message
    assert await application.value(database_url, "SELECT count(*) FROM user_licenses") == 0


async def test_the_scan_and_the_list_of_issues_take_the_setting(database_url: str) -> None:
    await application.execute(
        database_url, DROPPED, "DELETE FROM user_licenses", "DELETE FROM specialization_progress",
        "INSERT INTO specialization_progress (student_id, specialization_id, current_level) VALUES (1, 'COACH', 5),"
        " (2, 'COACH', 6)",
    )  # fmt: skip
    engine = make_engine(with_maxima(database_url, {"COACH": 5, "PLAYER": 8, "INTERNSHIP": 3}))
    found = {issue.user_id: issue.issue_type async for issue in ProgressLicenseSyncService(engine).find_desync_issues()}
    await engine.dispose()
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


async def test_migrate_takes_a_database_without_the_column(
    empty_database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the setting it changes nothing. With it, INTERNSHIP's levels are skipped with a line."""
    await application.make_application(empty_database_url, DROPPED)
    refusal = await application.refused(empty_database_url)
    assert "the table specializations has no column max_levels and LEVELSYNC_MAX_LEVELS is not set" in refusal
    assert await application.value(empty_database_url, "SELECT to_regnamespace('levelsync')") is None
    await application.upgrade(empty_database_url, with_settings=with_maxima(empty_database_url, {"PLAYER": 8}))
    assert "There is no column specializations.max_levels: no number of levels is changed" in capsys.readouterr().err
