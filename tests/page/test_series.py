"""Minute samples, which all processes add to and charts read, and how many queries a page sends."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from events import LICENSE_ADVANCED_TYPE, PROGRESS_LEVELED_UP_TYPE
from service.admin import runs
from service.admin.identity import Identity
from service.admin.overview import Waits, read_overview
from service.admin.series import Delay, History, Sample, delay_of, series_of
from service.admin.users import read_user
from service.process import watch
from service.process.watch import Sampler
from service.settings import Settings
from service.store.engine import make_engine
from service.telemetry import metrics
from tests.support.tables import execute
from tests.support.tokens import somebody

_ROWS = text("""
    INSERT INTO levelsync.minute_samples (minute, lag)
    SELECT date_trunc('minute', now()) - n * interval '1 minute', 1 FROM generate_series(1, CAST(:minutes AS int)) n
""")
NOW = datetime(2026, 11, 25, 12, 30, 20, tzinfo=UTC)


@pytest.fixture
def minute(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The minute that the sampler's clock shows."""
    shown = [0]
    monkeypatch.setattr(watch, "_minute", lambda: shown[0])
    return shown


async def stored(engine: AsyncEngine) -> list[Sample]:
    history = History()
    async with engine.connect() as conn:
        await history.read(conn, datetime.now(UTC))
    return list(history._samples.values())


def decide(applied: int, dead: int, *seconds: float) -> None:
    """Count events as the appliers do."""
    metrics.EVENTS.labels(PROGRESS_LEVELED_UP_TYPE, "applied").inc(applied)
    metrics.EVENTS.labels(LICENSE_ADVANCED_TYPE, "dead_lettered").inc(dead)
    metrics.EVENT_DELAY.observe_all(PROGRESS_LEVELED_UP_TYPE, seconds)


async def test_the_processes_of_a_minute_add_up(engine: AsyncEngine, minute: list[int]) -> None:
    """Counts are added, gauges keep their maximum, and an unfinished minute is not stored."""
    one, other = Sampler(), Sampler()
    decide(10, 1, 0.003, 0.02, 90_000)
    await one.sample(engine)
    assert await stored(engine) == []
    minute[0] += 1
    for process, lag in ((one, 40), (other, 10)):
        metrics.CONSUMER_LAG.clear()
        metrics.CONSUMER_LAG.labels("progress.leveled-up", "0").set(lag)
        await process.sample(engine)
        await process.sample(engine)
    (sample,) = await stored(engine)
    assert sample.events == {f"{PROGRESS_LEVELED_UP_TYPE} applied": 20, f"{LICENSE_ADVANCED_TYPE} dead_lettered": 2}
    buckets = {"0.005": 2, "0.025": 2, "+Inf": 2}
    assert sample.delays == {f"{PROGRESS_LEVELED_UP_TYPE} {bound}": number for bound, number in buckets.items()}
    assert sample.lag == 40
    assert datetime.now(UTC) - sample.minute < timedelta(seconds=95)


async def test_samples_that_could_not_be_stored_are_added_to_the_next_minute(
    engine: AsyncEngine, settings: Settings, minute: list[int]
) -> None:
    process = Sampler()
    away = make_engine(settings.model_copy(update={"database_url": SecretStr("postgresql://x@127.0.0.1:1/x")}))
    decide(3, 0)
    minute[0] += 1
    with pytest.raises(OSError, match="Connect call failed"):
        await process.sample(away)
    decide(4, 0)
    minute[0] += 1
    await process.sample(engine)
    minute[0] += 1
    await process.sample(engine)
    total = sum((sample.events for sample in await stored(engine)), Counter())
    assert total == {f"{PROGRESS_LEVELED_UP_TYPE} applied": 7}


def sample(minutes_ago: int, applied: int, delays: dict[str, int] | None = None, **gauges: int) -> Sample:
    """Return a minute in which one type of events was applied."""
    at = NOW.replace(second=0) - timedelta(minutes=minutes_ago)
    counted = Counter({f"{PROGRESS_LEVELED_UP_TYPE} {bound}": number for bound, number in (delays or {}).items()})
    levels: dict[str, int | None] = {"lag": None, "drift": None, "dead_letters": None, **gauges}
    return Sample(at, Counter({f"{PROGRESS_LEVELED_UP_TYPE} applied": applied}), counted, **levels)


def test_the_hour_goes_by_minutes_and_the_day_by_quarters() -> None:
    """A quarter has the sum of counts and the peak of gauges. A minute without a sample is a gap."""
    series = series_of([sample(1, 60, lag=5), sample(2, 30, lag=9), sample(20, 6), sample(700, 1)], NOW)
    assert (len(series.hour.points), len(series.day.points)) == (60, 96)
    assert [point.outcomes["applied"] for point in series.hour.points[-3:]] == [0, 30, 60]
    assert [point.lag for point in series.hour.points[-3:]] == [None, 9, 5]
    assert [point.seconds for point in series.hour.points[-3:]] == [0, 60, 60]
    last, before = series.day.points[-1], series.day.points[-2]
    assert (last.at, last.outcomes["applied"], last.lag) == (datetime(2026, 11, 25, 12, 15, tzinfo=UTC), 90, 9)
    assert (before.outcomes["applied"], before.lag) == (6, None)
    assert sum(point.outcomes["applied"] for point in series.day.points) == 97
    (kind,) = series.types
    assert (kind.type, kind.outcomes) == (PROGRESS_LEVELED_UP_TYPE, [("applied", 96, 97)])


def test_the_quantiles_are_those_of_all_minutes_together() -> None:
    """They come from the added buckets, because a mean of quantiles has no meaning."""
    series = series_of([sample(3, 9, {"0.005": 99}), sample(4, 9, {"1.0": 100}), sample(5, 9, {"+Inf": 1})], NOW)
    assert series.day.points[-1].delay == Delay(1, 1)
    minutes = [point.delay for point in series.hour.points[-5:-2]]
    assert minutes == [Delay(math.inf, math.inf), Delay(1, 1), Delay(0.005, 0.005)]


def test_the_delay_is_two_quantiles_of_what_was_observed() -> None:
    assert delay_of(Counter({"0.05": 150, "1.0": 48, "60.0": 1, "+Inf": 1})) == Delay(0.05, 1)
    assert delay_of(Counter({"+Inf": 1})) == Delay(math.inf, math.inf)
    assert delay_of(Counter()) is None


async def test_each_refresh_reads_only_the_newest_minutes(engine: AsyncEngine) -> None:
    history = History()
    async with engine.begin() as conn:
        await conn.execute(_ROWS, {"minutes": 1500})
        now = (await conn.execute(text("SELECT date_trunc('minute', now())"))).scalar_one() + timedelta(seconds=20)
        first = await history.read(conn, now)
        await conn.execute(text("UPDATE levelsync.minute_samples SET lag = 77"))
        assert await history.read(conn, now + timedelta(seconds=9)) is first
        again = await history.read(conn, now + timedelta(seconds=10))
    assert [point.lag for point in first.hour.points[-6:]] == [1, 1, 1, 1, 1, 1]
    assert [point.lag for point in again.hour.points[-6:]] == [1, 1, 77, 77, 77, 77]
    assert sum(point.seconds for point in first.day.points) == pytest.approx(24 * 3600, abs=900)


ADMIN = somebody("admin")
_FILL = (
    "TRUNCATE levelsync.reconcile_runs, levelsync.dead_letters CASCADE",
    """INSERT INTO levelsync.reconcile_runs (id, status, direction, dry_run, force)
       SELECT gen_random_uuid(), 'running', 'highest', false, false FROM generate_series(1, {number})""",
    """INSERT INTO levelsync.dead_letters (topic, partition, "offset", record_timestamp, reason)
       SELECT 'progress.leveled-up', 0, n, 0, 'malformed' FROM generate_series(1, {number}) AS n""",
    """INSERT INTO levelsync.reconcile_ranges (run_id, chunk, after_user, upto_user)
       SELECT id, n, n, n + 1 FROM levelsync.reconcile_runs, generate_series(1, 5) AS n""",
)


async def fill(engine: AsyncEngine, number: int) -> None:
    await execute(engine, *(statement.format(number=number) for statement in _FILL))


async def queries(engine: AsyncEngine, ask: Callable[[AsyncEngine, Identity], Awaitable[Any]]) -> list[str]:
    sent: list[str] = []

    def heard(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", heard)
    await ask(engine, ADMIN)
    event.remove(engine.sync_engine, "before_cursor_execute", heard)
    return sent


async def overview(engine: AsyncEngine, who: Identity) -> Any:
    return await read_overview(engine, who, {}, Waits(), History())


async def list_runs(engine: AsyncEngine, who: Identity) -> Any:
    return await runs.read_reports(engine, who, 100)


async def test_no_page_sends_more_queries_for_more_rows(engine: AsyncEngine) -> None:
    for ask, most in ((overview, 11), (list_runs, 4)):
        await fill(engine, 1)
        few = await queries(engine, ask)
        await fill(engine, 50)
        assert len(await queries(engine, ask)) == len(few) <= most


async def test_the_overview_never_reads_the_application_s_tables(engine: AsyncEngine) -> None:
    await fill(engine, 5)
    sent = " ".join(await queries(engine, overview))
    assert "public." not in sent
    assert "levelsync.pairs" not in sent


async def test_a_user_s_page_sends_six_queries(engine: AsyncEngine) -> None:
    more = "SELECT 'S' || n, 'S', 3 FROM generate_series(1, 40) AS n"
    await execute(engine, f"INSERT INTO specializations (id, name, max_levels) {more}")
    assert len(await queries(engine, lambda engine, who: read_user(engine, who, 5))) == 6
