"""The data of the page's overview."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.admin.audit import check
from service.admin.database import busy_if_unavailable
from service.admin.identity import Identity
from service.admin.series import History, Series
from service.dead_letters import ReasonCount, count_by_reason
from service.reconcile.runs import reports_of
from service.reconcile.values import RunReport, run_of
from service.telemetry import metrics

Moves = Mapping[tuple[str, int], datetime]
"""When the position of a topic's partition was stored last."""


@dataclass(frozen=True, slots=True)
class Partition:
    """The lag of one partition of an event topic."""

    topic: str
    number: int
    lag: int
    """Records, as this process measured it seconds ago."""
    moved_at: datetime | None
    """When its position was stored last."""
    waits_since: datetime | None
    """Since when this process has seen records wait at the same position; None where no records wait."""


class Waits:
    """Remembers since when records of each partition have waited.

    The age of the stored position is not enough: after an idle hour, a new record is not stuck.
    """

    def __init__(self) -> None:
        self._since: dict[tuple[str, int], tuple[datetime | None, datetime]] = {}

    def see(self, lag: Mapping[tuple[str, int], int], moved: Moves, now: datetime) -> list[Partition]:
        """Record the current lag, and return the partitions."""
        waiting = [(at, moved.get(at)) for at, records in lag.items() if records]
        self._since = {at: self._unmoved(at, position_at) or (position_at, now) for at, position_at in waiting}
        since = {at: begun for at, (_, begun) in self._since.items()}
        return [Partition(*at, records, moved.get(at), since.get(at)) for at, records in sorted(lag.items())]

    def _unmoved(self, at: tuple[str, int], moved_at: datetime | None) -> tuple[datetime | None, datetime] | None:
        known = self._since.get(at)
        return known if known is not None and known[0] == moved_at else None


def lag() -> dict[tuple[str, int], int]:
    """Return the number of records that wait, by topic and partition; empty until this process has measured it."""
    return {(at["topic"], int(at["partition"])): int(value) for at, value in metrics.samples(metrics.CONSUMER_LAG)}


def lost() -> int:
    """Return the number of records that Kafka's retention deleted before they were read."""
    return int(sum(value for _, value in metrics.samples(metrics.RECORDS_LOST, "_total")))


MAX_PENDING = 100_000
"""The maximum number of rows of the outbox that are counted."""
_SHOWN_RUNS = 3
_NOW = text("SELECT clock_timestamp()")
_MOVED = text("SELECT topic, partition, max(updated_at) AS at FROM levelsync.applied_offsets GROUP BY 1, 2")
_LAST_SCAN = text("""
    SELECT run_id AS id, finished_at, counts FROM levelsync.complete_scans ORDER BY finished_at DESC LIMIT 1
""")
_LAST_END = text("""
    SELECT * FROM levelsync.reconcile_runs
     WHERE finished_at IS NOT NULL AND specialization IS NULL AND user_id IS NULL
     ORDER BY finished_at DESC LIMIT 1
""")
_RUNNING = text("""
    SELECT * FROM levelsync.reconcile_runs WHERE finished_at IS NULL ORDER BY requested_at DESC LIMIT :limit
""")
_PENDING = text("""
    SELECT count(*) AS pending, min(created_at) AS oldest
      FROM (SELECT created_at FROM levelsync.outbox ORDER BY id LIMIT :limit) o
""")


@dataclass(frozen=True, slots=True)
class Scan:
    """The last complete scan, and what it left in disagreement."""

    run_id: str
    finished_at: datetime
    drift: list[tuple[str, str, int]]
    """Kind, specialization, pairs."""

    @property
    def pairs(self) -> int:
        """Return the number of all pairs that it left in disagreement."""
        return sum(number for _, _, number in self.drift)


@dataclass(frozen=True, slots=True)
class RunEnd:
    """The end of a run: its status and the number of pairs that it could not confirm."""

    status: str
    unconfirmed: int


@dataclass(frozen=True, slots=True)
class Outbox:
    """The events that wait to be sent to Kafka."""

    pending: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class Overview:
    """The state of the service at one time. `partitions` is None until this process has measured the lag."""

    now: datetime
    problems: Mapping[str, list[str]]
    partitions: list[Partition] | None
    outbox: Outbox
    scan: Scan | None
    last_end: RunEnd | None
    """The last run over everything that ended, with any status."""
    running: list[RunReport]
    letters: list[ReasonCount]
    series: Series
    lost: int


async def read_overview(
    engine: AsyncEngine, who: Identity, problems: Mapping[str, list[str]], waits: Waits, history: History
) -> Overview:
    """Return the overview, from a few short queries and from this process's gauges.

    `problems` are this process's problems by component (`Health.by_component`).

    Raises:
        Forbidden, Busy.
    """
    await check(engine, who)
    return await read_own_overview(engine, problems, waits, history)


async def read_own_overview(
    engine: AsyncEngine, problems: Mapping[str, list[str]], waits: Waits, history: History
) -> Overview:
    """Return the overview without a check of rights, for this process itself.

    Raises:
        Busy: the database cannot answer.
    """
    with busy_if_unavailable():
        async with engine.connect() as conn:
            moved = {(row.topic, row.partition): row.at for row in await conn.execute(_MOVED)}
            now: datetime = (await conn.execute(_NOW)).scalar_one()
            return Overview(
                now=now,
                problems=problems,
                partitions=waits.see(lag(), moved, now) or None,
                outbox=Outbox(*(await conn.execute(_PENDING, {"limit": MAX_PENDING})).one()),
                scan=await _last_scan(conn),
                last_end=await _last_end(conn),
                running=await _running(conn),
                letters=await count_by_reason(conn),
                series=await history.read(conn, now),
                lost=lost(),
            )


async def _last_scan(conn: AsyncConnection) -> Scan | None:
    row = (await conn.execute(_LAST_SCAN)).one_or_none()
    if row is None:
        return None
    return Scan(str(row.id), row.finished_at, [(kind, name, n) for kind, name, n in row.counts.get("left_by", ())])


async def _last_end(conn: AsyncConnection) -> RunEnd | None:
    row = (await conn.execute(_LAST_END)).one_or_none()
    return None if row is None else RunEnd(row.status, int(row.counts.get("unconfirmed") or 0))


async def _running(conn: AsyncConnection) -> list[RunReport]:
    rows = (await conn.execute(_RUNNING, {"limit": _SHOWN_RUNS})).all()
    return await reports_of(conn, [run_of(row) for row in rows])
