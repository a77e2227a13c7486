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
_DIFFERENT = "SELECT count(*) FROM levelsync.pairs WHERE state <> 'in_sync'"


async def run(sizes: Sizes) -> list[Row]:
    """Heal the same drift in a new copy of the database each round."""
    users = sizes.healed * _ONE_IN // 2
    reports: list[Report] = []
    async with servers() as arena:
        template = await arena.template(users, fill(1, users, _ONE_IN))
        for _ in range(sizes.rounds):
            settings = await arena.new(template, reconcile_grace=timedelta(0))
            async with reconciler(arena, settings):
                reports.append(await reconcile(settings, execute_it=True))
                await _check(settings, reports[-1], sizes.healed)
            await arena.drop(settings)
            await arena.empty_topics()
    whole = tuple(round(sizes.healed / report.seconds, 1) for report in reports)
    note = f"{sizes.healed:,} of {sizes.healed * _ONE_IN:,} pairs, scan and confirmation included"
    return [Row("heal", whole, "pairs/s", at_least=_TARGET, note=note)]


async def _check(settings: Settings, report: Report, healed: int) -> None:
    assert report.counts["healed"] == healed, report  # noqa: S101 - a wrong heal has no speed
    connection = await connect(settings)
    left = await connection.fetchval(_DIFFERENT)
    await connection.close()
    assert left == 0, f"{left} pairs still disagree"  # noqa: S101 - as above
