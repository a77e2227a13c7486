"""A fault of the installation that is repaired during an attempt leaves no dead letters behind (law 4)."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.apply.batch import Applied
from service.faults import InstallationFault
from tests.support.applier import Partitions, fresh, one
from tests.support.model import LEVELED_UP
from tests.support.tables import execute, licenses, trigger

USERS = range(1, 31)


@pytest.fixture
async def partitions(engine: AsyncEngine) -> Partitions:
    """Two consumers whose database refuses every user, for now."""
    made = await fresh(engine)
    await execute(engine, "ALTER TABLE user_licenses ADD CONSTRAINT nobody CHECK (current_level < 0)")
    return made


async def apply(partitions: Partitions) -> Applied:
    partitions.ends[LEVELED_UP] = 0
    return await partitions.apply(LEVELED_UP, partitions.records([one(user=user, minutes=user) for user in USERS]))


async def test_refusals_before_the_repair_do_not_count(engine: AsyncEngine, partitions: Partitions) -> None:
    """The attempt during which it is repaired is given up. The next attempt applies everything."""
    with pytest.raises(InstallationFault, match="20 users in a row"):
        await apply(partitions)
    await execute(engine, "ALTER TABLE user_licenses DROP CONSTRAINT nobody", "CREATE SEQUENCE refused")
    refuse = "IF nextval('refused') <= 4 THEN RAISE 'nobody'; END IF; RETURN NEW;"
    await trigger(engine, "BEFORE INSERT", refuse)  # the batch as a whole, then three of its records
    with pytest.raises(InstallationFault, match="fewer records than a moment ago"):
        await apply(partitions)
    applied = await apply(partitions)
    assert not applied.letters
    assert await licenses(engine) == {(user, "PLAYER"): 3 for user in USERS}


async def test_a_record_refused_after_the_repair_stands_alone(engine: AsyncEngine, partitions: Partitions) -> None:
    with pytest.raises(InstallationFault, match="20 users in a row"):
        await apply(partitions)
    await execute(engine, "ALTER TABLE user_licenses DROP CONSTRAINT nobody, ADD CONSTRAINT six CHECK (user_id <> 6)")
    with pytest.raises(InstallationFault, match="fewer records than a moment ago"):
        await apply(partitions)
    applied = await apply(partitions)
    assert [letter.index for letter in applied.letters] == [5]
    assert len(await licenses(engine)) == len(USERS) - 1
