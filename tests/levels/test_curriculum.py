"""The curriculum: highest levels and defaults, and the seed's helper that reads them."""

import logging
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from service.faults import InstallationFault
from service.levels import Curriculum, LicenseSystemHelper, read_curriculum
from service.settings import Settings
from service.store.application import configuration_faults
from service.store.engine import make_engine
from tests.support import application


def test_a_name_is_found_exactly_or_without_case() -> None:
    curriculum = Curriculum({"PLAYER": 8, "Coach": 3})
    assert [curriculum.canonical(name) for name in ("PLAYER", "player", "COACH", "coach")] == [
        "PLAYER",
        "PLAYER",
        "Coach",
        "Coach",
    ]
    assert curriculum.max_level("Coach") == 3


def test_an_unknown_name_is_none() -> None:
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


async def test_a_new_specialization_counts_at_once(database_url: str) -> None:
    engine = make_engine(application.settings(database_url))
    async with engine.begin() as conn:
        assert (await read_curriculum(conn)).levels == {"PLAYER": 8, "COACH": 8, "INTERNSHIP": 3}
        insert = "INSERT INTO specializations (id, name, max_levels, is_active) VALUES ('Referee', 'R', 4, false)"
        await conn.execute(text(insert))
        curriculum = await read_curriculum(conn)
    await engine.dispose()
    assert curriculum.canonical("REFEREE") == "Referee"
    assert curriculum.max_level("Referee") == 4


async def test_a_default_that_does_not_convert_is_named_before_any_record(
    engine: AsyncEngine, settings: Settings
) -> None:
    """Otherwise every new row would be refused as if its record were bad."""
    async with engine.begin() as conn:
        await conn.execute(text("ALTER TABLE user_licenses ADD COLUMN fee integer NOT NULL DEFAULT 0"))
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


async def test_a_missing_row_and_a_maximum_of_nothing_fall_back(session: AsyncSession) -> None:
    await session.execute(text("UPDATE specializations SET max_levels = 0 WHERE id = 'COACH'"))
    await session.execute(text("DELETE FROM specializations WHERE id = 'INTERNSHIP'"))
    assert [await _ask(session, name) for name in ("COACH", "INTERNSHIP", "GOALKEEPER")] == [8, 3, 1]


async def test_the_setting_answers_before_the_fallback(session: AsyncSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEVELSYNC_MAX_LEVELS", '{"player": 5, "COACH": 6, "LFA_COACH": 7}')
    await session.execute(text("UPDATE specializations SET max_levels = 0 WHERE id = 'COACH'"))
    assert [await _ask(session, name) for name in ("PLAYER", "COACH", "lfa_coach")] == [8, 6, 7]
    await session.execute(text("ALTER TABLE specializations DROP COLUMN max_levels"))
    assert [await _ask(session, name) for name in ("PLAYER", "INTERNSHIP", "x")] == [5, 3, 1]


async def test_a_failed_query_is_logged_and_leaves_the_session_usable(
    session: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    """A savepoint keeps what the caller has done."""
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
