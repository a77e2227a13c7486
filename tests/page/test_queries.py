"""The page's queries: as many for a thousand rows as for one, and never a scan of the tables."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.admin import runs
from service.admin.identity import Identity
from service.admin.overview import Waits, read_overview
from service.admin.series import History
from service.admin.users import read_user
from tests.support.tokens import somebody

ADMIN = somebody("admin")
_RUNS = """
    INSERT INTO levelsync.reconcile_runs (id, status, direction, dry_run, force)
    SELECT gen_random_uuid(), 'running', 'highest', false, false FROM generate_series(1, :number)
"""
_LETTERS = """
    INSERT INTO levelsync.dead_letters (topic, partition, "offset", record_timestamp, reason)
    SELECT 'progress.leveled-up', 0, n, 0, 'malformed' FROM generate_series(1, :number) AS n
"""
_RANGES = """
    INSERT INTO levelsync.reconcile_ranges (run_id, chunk, after_user, upto_user)
    SELECT id, n, n, n + 1 FROM levelsync.reconcile_runs, generate_series(1, 5) AS n
"""

_SPECIALIZATIONS = """
    INSERT INTO specializations (id, name, max_levels) SELECT 'S' || n, 'S', 3 FROM generate_series(1, :number) AS n
"""


@contextmanager
def listening(engine: AsyncEngine) -> Iterator[list[str]]:
    """Yield the list of statements that are sent."""
    said: list[str] = []

    def heard(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        said.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", heard)
    yield said
    event.remove(engine.sync_engine, "before_cursor_execute", heard)


async def fill(engine: AsyncEngine, number: int) -> None:
    """Create `number` running runs and as many dead letters."""
    async with engine.begin() as conn:
        await conn.execute(text("TRUNCATE levelsync.reconcile_runs, levelsync.dead_letters CASCADE"))
        for statement in (_RUNS, _LETTERS):
            await conn.execute(text(statement), {"number": number})
        await conn.execute(text(_RANGES))


async def questions(engine: AsyncEngine, ask: Callable[[AsyncEngine, Identity], Awaitable[Any]]) -> list[str]:
    with listening(engine) as said:
        await ask(engine, ADMIN)
    return said


async def overview(engine: AsyncEngine, who: Identity) -> Any:
    return await read_overview(engine, who, {}, Waits(), History())


async def list_runs(engine: AsyncEngine, who: Identity) -> Any:
    return await runs.read_reports(engine, who, 100)


async def test_no_page_sends_more_queries_for_more_rows(engine: AsyncEngine) -> None:
    for ask, most in ((overview, 11), (list_runs, 4)):
        await fill(engine, 1)
        few = await questions(engine, ask)
        await fill(engine, 50)
        assert len(await questions(engine, ask)) == len(few) <= most


async def test_the_overview_never_reads_the_application_s_tables(engine: AsyncEngine) -> None:
    await fill(engine, 5)
    said = " ".join(await questions(engine, overview))
    assert "public." not in said
    assert "levelsync.pairs" not in said


async def test_a_user_s_page_sends_six_queries(engine: AsyncEngine) -> None:
    await add_specializations(engine, 40)
    said = await questions(engine, lambda engine, who: read_user(engine, who, 5))
    assert len(said) == 6


async def add_specializations(engine: AsyncEngine, number: int) -> None:
    async with engine.begin() as conn:
        await conn.execute(text(_SPECIALIZATIONS), {"number": number})
