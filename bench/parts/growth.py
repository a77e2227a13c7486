"""Growth: the drain with a hundred thousand licenses in the table, and with ten million."""

from __future__ import annotations

import sys

from bench.load import Records, make_records
from bench.meter import drain
from bench.servers import servers
from bench.sizes import Sizes
from bench.systems.levelsync import LEVELSYNC
from bench.table import Row, ratio

_FEW = 100_000
_TARGET = 0.8
_FILL = """
    SET session_replication_role = replica;  -- no foreign key is looked up for rows that are made to fit
    INSERT INTO public.user_licenses (user_id, specialization_type, current_level, max_achieved_level, started_at)
    SELECT g, 'INTERNSHIP', 1 + g % 3, 3, now() FROM generate_series(1, {users}) g;
    SET session_replication_role = DEFAULT;
"""


async def run(sizes: Sizes) -> list[Row]:
    """Few, many, few, many. The events' users are spread over all users, so that no cache holds their rows alone."""
    few: list[float] = []
    many: list[float] = []
    for _ in range(sizes.rounds):
        for rates, rows in ((few, _FEW), (many, sizes.rows)):
            rates.append(await _rate(make_records(sizes.events, stride=_stride(rows, sizes.events)), rows))
            print(rows, rates, file=sys.stderr, flush=True)
    return [
        Row(f"drain with {_FEW:,} licenses", tuple(few), "events/s"),
        Row(f"drain with {sizes.rows:,} licenses", tuple(many), "events/s"),
        ratio("many : few", many, few, at_least=_TARGET),
    ]


def _stride(rows: int, events: int) -> int:
    return max(1, rows // max(1, events // 6))


async def _rate(records: Records, rows: int) -> float:
    async with servers() as arena:
        template = await arena.template(max(records.users, rows), _FILL.format(users=rows))
        await LEVELSYNC.publish(arena, records)
        return (await drain(arena, await arena.new(template), LEVELSYNC, records)).rate
