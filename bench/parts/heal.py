"""Heal: a forced run that heals one pair in ten, from request to report."""

from __future__ import annotations

from datetime import timedelta

from bench.pairs import fill
from bench.servers import connect, servers
from bench.sizes import Sizes
from bench.systems.reconciler import Report, reconcile, reconciler
from bench.table import Row
from service.settings import Settings

_ONE_IN = 10
_TARGET = 8_000
_LAST_RUN = """
    SELECT extract(epoch FROM finished_at - requested_at)::float FROM levelsync.reconcile_runs
     ORDER BY requested_at DESC LIMIT 1
"""
_DIFFERENT = "SELECT count(*) FROM levelsync.pairs WHERE state <> 'in_sync'"


async def run(sizes: Sizes) -> list[Row]:
    """Heal the same drift in a new copy of the database each round."""
    users = sizes.healed * _ONE_IN // 2
    told: list[float] = []
    healed: list[float] = []
    async with servers() as arena:
        template = await arena.template(users, fill(1, users, _ONE_IN))
        for _ in range(sizes.rounds):
            settings = await arena.new(template, reconcile_grace=timedelta(0))
            async with reconciler(arena, settings):
                report = await reconcile(settings, execute_it=True)
                told.append(round(sizes.healed / report.seconds, 1))
                healed.append(round(sizes.healed / await _seconds(settings, report, sizes.healed), 1))
            await arena.drop(settings)
            await arena.empty_topics()
    note = f"{sizes.healed:,} of {sizes.healed * _ONE_IN:,} pairs, scan and confirmation included"
    return [
        Row("heal", tuple(healed), "pairs/s", at_least=_TARGET, note=note),
        Row("heal, until the report is in Kafka behind an event for each pair", tuple(told), "pairs/s"),
    ]


async def _seconds(settings: Settings, report: Report, healed: int) -> float:
    """What the run took by its own row, if everything is healed."""
    assert report.counts["healed"] == healed, report  # noqa: S101 - a wrong heal has no speed
    connection = await connect(settings)
    left = await connection.fetchval(_DIFFERENT)
    seconds: float = await connection.fetchval(_LAST_RUN)
    await connection.close()
    assert left == 0, f"{left} pairs still disagree"  # noqa: S101 - as above
    return seconds
