"""`levelsync doctor` notices another synchroniser by what it leaves behind: licenses that fell without a decision."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.checks.falling_levels import falling_levels
from service.checks.result import Check
from service.sync import ProgressLicenseSyncService
from tests.migrations import live

_HISTORY = """
    INSERT INTO license_progressions (user_license_id, from_level, to_level, advanced_at)
    SELECT id, {before}, {after}, timezone('UTC', now()) - interval '{ago}' FROM user_licenses
     WHERE user_id = 7 AND specialization_type = 'PLAYER'
"""
_AT_4 = """
    DELETE FROM license_progressions;
    UPDATE specialization_progress SET current_level = 4 WHERE student_id = 7 AND specialization_id = 'PLAYER';
    INSERT INTO user_licenses (user_id, specialization_type, current_level, max_achieved_level, started_at)
    VALUES (7, 'PLAYER', 4, 4, now())
    ON CONFLICT (user_id, specialization_type) DO UPDATE SET current_level = 4
"""


async def look(engine: AsyncEngine) -> Check:
    """Make the check."""
    async with engine.connect() as conn:
        return await falling_levels(conn)


@pytest.fixture(autouse=True)
async def _player_at_4(database_url: str) -> None:
    """User 7 is at level 4 in PLAYER, on both sides; nothing has happened yet."""
    await live.execute(database_url, _AT_4)


async def test_a_synchroniser_that_lowers_a_license_is_noticed(engine: AsyncEngine, database_url: str) -> None:
    """The application's own job leaves a history row that falls, and levelsync has decided nothing."""
    assert (await look(engine)).passed
    await live.execute(
        database_url,
        _HISTORY.format(before=4, after=3, ago="1 hour"),
        "UPDATE user_licenses SET current_level = 3 WHERE user_id = 7 AND specialization_type = 'PLAYER'",
    )
    found = await look(engine)
    assert (found.passed, found.detail) == (
        False,
        "1 licenses fell in the last 24 hours, not by levelsync: user 7 in PLAYER from 4 to 3",
    )
    assert "docs/adopt.md" in found.fix


async def test_a_license_below_its_own_history_is_noticed(engine: AsyncEngine, database_url: str) -> None:
    """Lowered without a row in the history."""
    await live.execute(
        database_url,
        _HISTORY.format(before=3, after=4, ago="1 hour"),
        "UPDATE user_licenses SET current_level = 2 WHERE user_id = 7 AND specialization_type = 'PLAYER'",
    )
    assert "user 7 in PLAYER from 4 to 2" in (await look(engine)).detail


async def test_a_decision_of_levelsync_is_no_other_synchroniser(engine: AsyncEngine) -> None:
    """Its fence says who lowered the pair."""
    await ProgressLicenseSyncService(engine).set_level(7, "player", 2, "a test")
    assert (await look(engine)).passed


async def test_what_fell_before_yesterday_is_over(engine: AsyncEngine, database_url: str) -> None:
    """Demotions from before the adoption are not reported for ever."""
    await live.execute(
        database_url,
        _HISTORY.format(before=4, after=3, ago="25 hours"),
        "UPDATE user_licenses SET current_level = 3 WHERE user_id = 7 AND specialization_type = 'PLAYER'",
    )
    assert (await look(engine)).passed
