"""A plan is made for the tables as they are, also on a connection that was opened when they were empty."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.apply import sql

_OFTEN = 10
"""Executions after which PostgreSQL would keep a statement's plan."""
_FIRST, _LAST = 1001, 20_000
_ADD_USERS = text("""
    INSERT INTO public.users (id, name, email)
    SELECT g, 'User', g || '@example.org' FROM generate_series(CAST(:a AS int), CAST(:b AS int)) g
""")
_ADD_LICENSES = text("""
    INSERT INTO public.user_licenses (user_id, specialization_type, current_level, max_achieved_level, started_at)
    SELECT g, 'PLAYER', 1, 1, now() FROM generate_series(CAST(:a AS int), CAST(:b AS int)) g
""")
_READ_ONE_BY_ONE = text("SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'user_licenses'")
_CREATE = sql.create_licenses(())


async def test_no_plan_made_for_an_empty_table_is_kept_while_it_grows(engine: AsyncEngine) -> None:
    """A new installation that fills read its whole table for every batch, until autovacuum looked at it."""
    async with engine.begin() as conn:
        await conn.execute(text("ALTER TABLE public.user_licenses SET (autovacuum_enabled = false)"))
        await conn.execute(_ADD_USERS, {"a": _FIRST, "b": _LAST})
        await conn.execute(text("ANALYZE public.user_licenses"))
    async with engine.connect() as conn, engine.connect() as application:
        for number in range(_OFTEN):
            await _apply(conn, _FIRST + number)
            await conn.commit()
        await application.execute(_ADD_LICENSES, {"a": _FIRST + _OFTEN, "b": _LAST - 1})
        await application.commit()
        before = (await conn.execute(_READ_ONE_BY_ONE)).scalar_one()
        await _apply(conn, _LAST)
        assert (await conn.execute(_READ_ONE_BY_ONE)).scalar_one() == before


async def _apply(conn: AsyncConnection, user: int) -> None:
    """A new license and its history, as a batch of one event writes them."""
    pair = {"users": [user], "specializations": ["PLAYER"]}
    now = [datetime.now(UTC)]
    await conn.execute(sql.LOCK_LICENSES, pair)
    made = (await conn.execute(_CREATE, pair | {"levels": [1], "created": now, "advanced": now})).one()
    rise = {"ids": [made.id], "froms": [0], "tos": [1], "reasons": ["an event"], "times": now}
    await conn.execute(sql.ADD_HISTORY, rise)
