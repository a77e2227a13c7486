"""A replay meets every refused record again, and no new rise between them: that is no fault of the installation."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.applier import TARGETS, fresh, one
from tests.support.model import LEVELED_UP
from tests.support.tables import licenses


async def test_a_replay_of_refused_records_is_no_fault_of_the_installation(engine: AsyncEngine) -> None:
    """Laws 3 and 4: dead letters that are there already count for nothing, however many users they are of."""
    partitions = await fresh(engine)
    async with engine.begin() as conn:
        await conn.execute(text("ALTER TABLE user_licenses ADD CONSTRAINT odd CHECK (user_id % 4 > 0)"))
    meant = [one(user=user, minutes=user) for user in range(1, 121)]
    applied = await partitions.apply(LEVELED_UP, partitions.records(meant))
    assert len(applied.letters) == 30
    before = await licenses(engine)
    partitions.ends = dict.fromkeys(TARGETS, 0)
    again = await partitions.apply(LEVELED_UP, partitions.records(meant))
    assert [letter.index for letter in again.letters] == [letter.index for letter in applied.letters]
    assert await licenses(engine) == before
    async with engine.connect() as conn:
        assert (await conn.execute(text("SELECT count(*) FROM levelsync.dead_letters"))).scalar_one() == 30
