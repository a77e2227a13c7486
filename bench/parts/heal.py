"""Heal: a forced run that heals one pair in ten, from request to report."""

from __future__ import annotations

import sys
from datetime import timedelta

from bench.pairs import fill
from bench.servers import connect, running_servers
from bench.sizes import Sizes
from bench.systems.reconciler import Report, reconcile, reconciler
from bench.table import Row
from events import Direction
from service.settings import Settings

_ONE_IN = 10
_TARGETS: dict[Direction, int] = {"highest": 16_000, "progress_to_license": 13_000}
"""Pairs a second. The second direction lowers seven of eight licenses, and leaves a fence for each of these."""
_LAST_RUN = """
    SELECT extract(epoch FROM finished_at - requested_at)::float FROM levelsync.reconcile_runs
     ORDER BY requested_at DESC LIMIT 1
"""
_DIFFERENT = "SELECT count(*) FROM levelsync.pairs WHERE state <> 'in_sync'"


async def run(sizes: Sizes) -> list[Row]:
    """Heal the same drift in both directions, each time in a new copy of the database."""
    users = sizes.healed * _ONE_IN // 2
    reported: dict[Direction, list[float]] = {direction: [] for direction in _TARGETS}
    healed: dict[Direction, list[float]] = {direction: [] for direction in _TARGETS}
    async with running_servers() as servers:
        template = await servers.template(users, fill(1, users, _ONE_IN))
        for _ in range(sizes.rounds):
            for direction in _TARGETS:
                settings = await servers.new(template, reconcile_grace=timedelta(0))
                async with reconciler(servers, settings):
                    report = await reconcile(settings, execute_it=True, direction=direction)
                    reported[direction].append(round(sizes.healed / report.seconds, 1))
                    healed[direction].append(round(sizes.healed / await _seconds(settings, report, sizes.healed), 1))
                await servers.drop(settings)
                await servers.empty_topics()
                print(direction, healed[direction][-1], file=sys.stderr, flush=True)
    return [row for direction in _TARGETS for row in _rows(direction, reported[direction], healed[direction], sizes)]


def _rows(direction: Direction, reported: list[float], healed: list[float], sizes: Sizes) -> list[Row]:
    name = "heal, highest" if direction == "highest" else "heal, with fences"
    note = f"{sizes.healed:,} of {sizes.healed * _ONE_IN:,} pairs, scan and confirmation included"
    return [
        Row(name, tuple(healed), "pairs/s", at_least=_TARGETS[direction], note=note),
        Row(f"{name}, until the report is in Kafka after an event for each pair", tuple(reported), "pairs/s"),
    ]


async def _seconds(settings: Settings, report: Report, healed: int) -> float:
    """Return the duration that the row of the run shows, after a check that everything is healed."""
    assert report.counts["healed"] == healed, report  # noqa: S101 - the figures of a wrong heal do not count
    connection = await connect(settings)
    left = await connection.fetchval(_DIFFERENT)
    seconds: float = await connection.fetchval(_LAST_RUN)
    await connection.close()
    assert left == 0, f"{left} pairs still disagree"  # noqa: S101 - as above
    return seconds
