"""The plan of every statement at five million rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import count

import pytest
import pytest_asyncio
from aiokafka import TopicPartition
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.apply.call import Call, call_within, license_target
from service.apply.progress import Way
from service.core.decode import decode
from service.core.outcomes import LevelEvent
from service.levels import read_snapshot
from service.settings import Settings
from service.store.engine import make_engine
from service.stream.positions import Batch, set_position
from tests.support.model import LEVELED_UP, Meant
from tests.support.plans import (
    ONE_IN,
    faults,
    generic_plan,
    make_big,
    plan_for,
    statements,
    values_for,
    with_statistics,
    without_statistics,
)
from tests.support.records import TOPIC, as_record
from tests.support.servers import Postgres

_STOPS_AT_THE_FIRST_ROW = {"reconcile.ONE_TABLE_IS_EMPTY"}
_ALL = {name: statement for name, statement in statements() if name not in _STOPS_AT_THE_FIRST_ROW}
_STATES = [
    pytest.param((ONE_IN, with_statistics), id="analysed"),
    pytest.param((ONE_IN, without_statistics), id="never_analysed"),
    pytest.param((1, with_statistics), id="analysed_in_full", marks=pytest.mark.soak),
    pytest.param((1, without_statistics), id="never_analysed_in_full", marks=pytest.mark.soak),
]
"""Which share of the rows exists, and which statistics PostgreSQL has."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=_STATES)
async def big(request: pytest.FixtureRequest, postgres: Postgres, template_database: str) -> AsyncIterator[AsyncEngine]:
    """An engine as the service creates it, on a database of this module whose tables have five million rows."""
    one_in, state = request.param
    url = await postgres.create_database(template_database)
    engine = make_engine(Settings(_env_file=None, database_url=SecretStr(url)))
    await make_big(engine, one_in)
    await state(engine)
    yield engine
    await engine.dispose()
    await postgres.drop_database(url)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", _ALL)
async def test_a_batch_reads_its_own_rows_only(big: AsyncEngine, name: str) -> None:
    """The plan for the values of one batch or one range has no sequential scan and no loop over a big table."""
    async with big.connect() as conn:
        assert faults(await plan_for(conn, _ALL[name], values_for(_ALL[name]))) == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", _ALL)
async def test_a_prepared_statement_reads_its_own_rows_only(big: AsyncEngine, name: str) -> None:
    """Nor has the generic plan that PostgreSQL may choose from the sixth execution on."""
    async with big.connect() as conn:
        assert faults(await generic_plan(conn, _ALL[name])) == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT count(*) FROM public.user_licenses WHERE current_level = 3",
        "SELECT * FROM public.specialization_progress p ORDER BY p.student_id, p.specialization_id",
        "SELECT FROM public.user_licenses l, LATERAL (SELECT FROM public.users u WHERE u.id = l.id LIMIT 1) u",
    ],
)
async def test_a_bad_plan_is_found(big: AsyncEngine, statement: str) -> None:
    async with big.connect() as conn:
        assert faults(await plan_for(conn, text(statement), {})) != []


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
    """A new installation read its whole table for every batch until autovacuum analysed it."""
    async with engine.begin() as conn:
        await conn.execute(text("TRUNCATE public.user_licenses CASCADE"))  # so that the planner sees no page either
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
    """Write a batch's levels on this connection."""
    records = [as_record(one, offset) for offset, one in enumerate(meant)]
    await set_position(conn, _PARTITION, 0, "")
    events = [item for item in decode(records) if isinstance(item, LevelEvent)]
    batch, snapshot = Batch(records, {_PARTITION: 0}, {}), await read_snapshot(conn)
    result = await call_within(conn, Call(license_target({}), snapshot, batch, batch.expected, events, Way.WHOLE, {}))
    assert len(result.outcomes) == len(meant)
