"""A kept plan stays right while tables grow: it looks rows up one by one, also where it was made for empty tables."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count

from aiokafka import TopicPartition
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.apply.call import Call, call_within, license_target
from service.apply.progress import Way
from service.core.decode import decode
from service.core.outcomes import LevelEvent
from service.levels import read_known
from service.stream.positions import Batch, set_position
from tests.support.model import LEVELED_UP, Meant
from tests.support.records import TOPIC, as_record
from tests.support.tables import empty_tables

_PARTITION = TopicPartition(TOPIC[LEVELED_UP], 0)
_OFTEN = 10
"""Executions after which PostgreSQL would keep any statement's plan."""
_FIRST, _LAST = 1001, 20_000
_ADD_USERS = text("""
    INSERT INTO public.users (id, name, email)
    SELECT g, 'User', g || '@example.org' FROM generate_series(CAST(:a AS int), CAST(:b AS int)) g
""")
_ADD_LICENSES = text("""
    INSERT INTO public.user_licenses (user_id, specialization_type, current_level, max_achieved_level, started_at)
    SELECT g, 'PLAYER', 1, 1, now() FROM generate_series(CAST(:a AS int), CAST(:b AS int)) g
""")
_READ = text("""
    SELECT coalesce(sum(seq_tup_read), 0), coalesce(sum(idx_tup_fetch), 0) FROM pg_stat_xact_user_tables
     WHERE relname IN ('user_licenses', 'users', 'license_progressions')
""")
_numbers = count()


async def test_no_plan_made_for_an_empty_table_reads_it_whole_while_it_grows(engine: AsyncEngine) -> None:
    """A new installation that fills read its whole table for every batch, until autovacuum looked at it."""
    await empty_tables(engine)
    async with engine.begin() as conn:
        await conn.execute(text("ALTER TABLE public.user_licenses SET (autovacuum_enabled = false)"))
        await conn.execute(_ADD_USERS, {"a": _FIRST, "b": _LAST})
        await conn.execute(text("ANALYZE public.user_licenses, public.license_progressions"))
    async with engine.connect() as conn, engine.connect() as application:
        for number in range(_OFTEN):
            await _apply(conn, _rise(_FIRST + number, 2))
            await conn.commit()
        await application.execute(_ADD_LICENSES, {"a": _FIRST + _OFTEN, "b": _LAST - 2})
        await application.commit()
        one_by_one, looked_up = (await conn.execute(_READ)).one()
        await _apply(conn, _rise(_LAST - 5, 3), _rise(_LAST, 1), _rise(_LAST - 1, 1))
        after = (await conn.execute(_READ)).one()
        assert after[0] == one_by_one
        assert after[1] - looked_up < 50


def _rise(user: int, level: int) -> Meant:
    return Meant(LEVELED_UP, user, "PLAYER", level, datetime.now(UTC), "/test", f"e{next(_numbers)}")


async def _apply(conn: AsyncConnection, *meant: Meant) -> None:
    """What a batch does to its target, always on this connection."""
    records = [as_record(one, offset) for offset, one in enumerate(meant)]
    await set_position(conn, _PARTITION, 0, "")
    events = [item for item in decode(records) if isinstance(item, LevelEvent)]
    batch, known = Batch(records, {_PARTITION: 0}, {}), await read_known(conn)
    result = await call_within(conn, Call(license_target({}), known, batch, batch.expected, events, Way.WHOLE, {}))
    assert len(result.outcomes) == len(meant)
