"""`LicenseSystemHelper`, for the application's own code."""

import logging
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from service.levels import LicenseSystemHelper
from service.store.engine import make_engine
from tests.support import application


@pytest.fixture
async def session(database_url: str) -> AsyncIterator[AsyncSession]:
    engine = make_engine(application.settings(database_url))
    async with AsyncSession(engine) as opened:
        yield opened
    await engine.dispose()


async def _ask(session: AsyncSession, name: str) -> int:
    return await session.run_sync(lambda sync: LicenseSystemHelper.get_specialization_max_level(name, sync))


async def test_the_database_is_the_source_of_truth(session: AsyncSession) -> None:
    """What this session has written counts, in whatever case the name is asked for."""
    await session.execute(text("UPDATE specializations SET max_levels = 11 WHERE id = 'INTERNSHIP'"))
    assert [await _ask(session, name) for name in ("INTERNSHIP", "internship", "Internship")] == [11, 11, 11]


async def test_a_name_that_the_database_writes_in_another_case_is_found(session: AsyncSession) -> None:
    """Neither side need be upper case; the exact name wins."""
    insert = "INSERT INTO specializations (id, name, max_levels) VALUES ('Referee', 'R', 4), ('player', 'p', 2)"
    await session.execute(text(insert))
    assert [await _ask(session, name) for name in ("REFEREE", "player", "PLAYER")] == [4, 2, 8]


@pytest.mark.parametrize(
    ("name", "levels"), [("COACH", 8), ("player", 8), ("Internship", 3), ("GOALKEEPER", 1), ("", 1)]
)
def test_without_a_session_the_fallback_answers(name: str, levels: int) -> None:
    """The levels that the application's own helper fell back to."""
    assert LicenseSystemHelper.get_specialization_max_level(name) == levels


async def test_a_missing_row_and_a_maximum_of_nothing_fall_back(session: AsyncSession) -> None:
    """0 is no number of levels."""
    await session.execute(text("UPDATE specializations SET max_levels = 0 WHERE id = 'COACH'"))
    await session.execute(text("DELETE FROM specializations WHERE id = 'INTERNSHIP'"))
    assert [await _ask(session, name) for name in ("COACH", "INTERNSHIP", "GOALKEEPER")] == [8, 3, 1]


async def test_the_setting_answers_before_the_fallback(session: AsyncSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database's value wins; where it has none, the setting of the process that asks."""
    monkeypatch.setenv("LEVELSYNC_MAX_LEVELS", '{"player": 5, "COACH": 6, "LFA_COACH": 7}')
    await session.execute(text("UPDATE specializations SET max_levels = 0 WHERE id = 'COACH'"))
    assert [await _ask(session, name) for name in ("PLAYER", "COACH", "lfa_coach")] == [8, 6, 7]
    await session.execute(text("ALTER TABLE specializations DROP COLUMN max_levels"))
    assert [await _ask(session, name) for name in ("PLAYER", "INTERNSHIP", "x")] == [5, 3, 1]


async def test_a_failed_query_is_logged_and_leaves_the_session_usable(
    session: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    """A savepoint keeps what the caller has done; nothing is silent."""
    await session.execute(text("UPDATE users SET name = 'kept' WHERE id = 1"))
    await session.execute(text("ALTER TABLE specializations RENAME TO gone"))
    with caplog.at_level(logging.WARNING, "service.levels"):
        assert await _ask(session, "PLAYER") == 8
    assert "max_levels of 'PLAYER' cannot be read" in caplog.text
    assert await session.scalar(text("SELECT name FROM users WHERE id = 1")) == "kept"


async def test_a_session_that_cannot_be_used_at_all_falls_back() -> None:
    """PostgreSQL away."""
    engine = make_engine(application.settings("postgresql://postgres@127.0.0.1:1/nothing"))
    async with AsyncSession(engine) as closed:
        assert await _ask(closed, "INTERNSHIP") == 3
    await engine.dispose()
