"""A fault of the installation that is repaired in the middle of an attempt leaves no dead letters behind (law 4)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from aiokafka import TopicPartition
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.apply.batch import Applied, Applier
from service.apply.call import license_target
from service.faults import InstallationFault
from service.stream.positions import Batch, set_position
from tests.support.model import LEVELED_UP, Meant
from tests.support.records import TOPIC, as_record
from tests.support.tables import empty_tables, licenses

PARTITION = TopicPartition(TOPIC[LEVELED_UP], 0)
USERS = range(1, 31)


async def run(engine: AsyncEngine, statement: str) -> None:
    async with engine.begin() as conn:
        await conn.execute(text(statement))


async def apply(applier: Applier) -> Applied:
    now = datetime.now(UTC)
    meant = [Meant(LEVELED_UP, user, "PLAYER", 3, now, "/test", f"e{user}") for user in USERS]
    records = [as_record(one, offset) for offset, one in enumerate(meant)]
    return await applier.apply(Batch(records, {PARTITION: 0}, {PARTITION: len(records)}))


@pytest.fixture
async def applier(engine: AsyncEngine) -> Applier:
    """Whom the database refuses everybody, for now."""
    await empty_tables(engine)
    async with engine.begin() as conn:
        await set_position(conn, PARTITION, 0, "")
    await run(engine, "ALTER TABLE user_licenses ADD CONSTRAINT nobody CHECK (current_level < 0)")
    return Applier(engine, license_target({}))


_REFUSE_THE_FIRST = """
    CREATE FUNCTION refuse_the_first() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN IF nextval('refused') <= {} THEN RAISE 'nobody'; END IF; RETURN NEW; END $$
"""
_BEFORE_EACH = """
    CREATE TRIGGER refuse_the_first BEFORE INSERT ON user_licenses FOR EACH ROW EXECUTE FUNCTION refuse_the_first()
"""


async def test_refusals_before_the_repair_do_not_count(engine: AsyncEngine, applier: Applier) -> None:
    """The attempt in which it is repaired is given up, the next applies everything."""
    with pytest.raises(InstallationFault, match="20 users in a row"):
        await apply(applier)
    await run(engine, "ALTER TABLE user_licenses DROP CONSTRAINT nobody")
    await run(engine, "CREATE SEQUENCE refused")
    await run(engine, _REFUSE_THE_FIRST.format(4))  # the batch as a whole, then three of its records
    await run(engine, _BEFORE_EACH)
    with pytest.raises(InstallationFault, match="decided again"):
        await apply(applier)
    applied = await apply(applier)
    assert not applied.letters
    assert await licenses(engine) == {(user, "PLAYER"): 3 for user in USERS}


async def test_one_record_that_is_refused_after_the_repair_still_stands_alone(
    engine: AsyncEngine, applier: Applier
) -> None:
    """It holds nobody up: it is a dead letter, one attempt later."""
    with pytest.raises(InstallationFault, match="20 users in a row"):
        await apply(applier)
    await run(engine, "ALTER TABLE user_licenses DROP CONSTRAINT nobody, ADD CONSTRAINT not_six CHECK (user_id <> 6)")
    with pytest.raises(InstallationFault, match="decided again"):
        await apply(applier)
    applied = await apply(applier)
    assert [letter.index for letter in applied.letters] == [5]
    assert len(await licenses(engine)) == len(USERS) - 1
