"""No statement of a hot path reads more of a big table than the rows it is about, with statistics or without."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from service.store.engine import make_engine
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
from tests.support.servers import Postgres

_STOPS_AT_THE_FIRST_ROW = {"reconcile.ONE_TABLE_IS_EMPTY"}
_ALL = {name: statement for name, statement in statements() if name not in _STOPS_AT_THE_FIRST_ROW}
_STATES = [
    pytest.param((ONE_IN, with_statistics), id="analysed"),
    pytest.param((ONE_IN, without_statistics), id="never_analysed"),
    pytest.param((1, with_statistics), id="analysed_in_full", marks=pytest.mark.soak),
    pytest.param((1, without_statistics), id="never_analysed_in_full", marks=pytest.mark.soak),
]
"""Which share of the rows is really there, and what PostgreSQL knows of them."""


@pytest.fixture(scope="module", params=_STATES)
def big_settings(request: pytest.FixtureRequest, postgres: Postgres, template_database: str) -> Iterator[Settings]:
    """A database of the module's own whose tables have five million rows."""
    one_in, state = request.param

    async def make() -> Settings:
        made = Settings(_env_file=None, database_url=SecretStr(await postgres.create_database(template_database)))
        engine = make_engine(made)
        await make_big(engine, one_in)
        await state(engine)
        await engine.dispose()
        return made

    with ThreadPoolExecutor(1) as pool:  # a thread of its own: pytest-asyncio keeps the loop of this one
        settings = pool.submit(asyncio.run, make()).result()
        yield settings
        pool.submit(asyncio.run, postgres.drop_database(settings.database_url.get_secret_value())).result()


@pytest.fixture
async def big(big_settings: Settings) -> Any:
    """The service's own kind of engine on those tables."""
    engine: AsyncEngine = make_engine(big_settings)
    yield engine
    await engine.dispose()


@pytest.mark.parametrize("name", _ALL)
async def test_a_batch_reads_its_own_rows_only(big: AsyncEngine, name: str) -> None:
    """The plan for the values of one batch or one range has no sequential scan and no loop over a big table."""
    async with big.connect() as conn:
        assert faults(await plan_for(conn, _ALL[name], values_for(_ALL[name]))) == []


@pytest.mark.parametrize("name", _ALL)
async def test_a_prepared_statement_reads_its_own_rows_only(big: AsyncEngine, name: str) -> None:
    """So has the generic plan that PostgreSQL may change to from the sixth execution on."""
    async with big.connect() as conn:
        assert faults(await generic_plan(conn, _ALL[name])) == []


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT count(*) FROM public.user_licenses WHERE current_level = 3",
        "SELECT * FROM public.specialization_progress p ORDER BY p.student_id, p.specialization_id",
        "SELECT FROM public.user_licenses l, LATERAL (SELECT FROM public.users u WHERE u.id = l.id LIMIT 1) u",
    ],
)
async def test_a_bad_plan_is_found(big: AsyncEngine, statement: str) -> None:
    """The look at a plan finds what it is there for."""
    async with big.connect() as conn:
        assert faults(await plan_for(conn, text(statement), {})) != []
