"""Growth: the drain with a hundred thousand licenses in the table, and with ten million."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bench.load import EVENTS_A_USER, make_records
from bench.meter import drain
from bench.servers import running_servers
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
    """Measure the small and the large table in turn. In the large one, also spread the events' users over all users."""
    few: list[float] = []
    many: list[float] = []
    spread: list[float] = []
    for _ in range(sizes.rounds):
        few += await _rates(sizes.events, _FEW, [1])
        for rates, rate in zip(
            (many, spread), await _rates(sizes.events, sizes.rows, [1, _stride(sizes)]), strict=True
        ):
            rates.append(rate)
        print(few, many, spread, file=sys.stderr, flush=True)
    of = f"{sizes.rows:,} licenses"
    return [
        Row(f"drain with {_FEW:,} licenses", tuple(few), "events/s"),
        Row(f"drain with {of}", tuple(many), "events/s", note="the events' users have consecutive ids, like new users"),
        ratio("many : few", many, few, at_least=_TARGET),
        Row(f"drain with {of}, spread", tuple(spread), "events/s", note="the events' users are on every page"),
        ratio("many, spread : few", spread, few),
    ]


def _stride(sizes: Sizes) -> int:
    """Return the distance of the events' users that spreads them over all users."""
    return max(1, sizes.rows // max(1, sizes.events // EVENTS_A_USER))


async def _rates(events: int, rows: int, strides: Sequence[int]) -> list[float]:
    """Run one drain for each stride, each with a new copy of the same tables, and return the rates."""
    loads = [make_records(events, stride) for stride in strides]
    users = max(rows, *(records.users for records in loads))
    rates: list[float] = []
    async with running_servers() as servers:
        template = await servers.template(users, _FILL.format(users=rows))
        for records in loads:
            await LEVELSYNC.publish(servers, records)
            settings = await servers.new(template)
            rates.append((await drain(servers, settings, LEVELSYNC, records)).rate)
            await servers.drop(settings)
            await servers.empty_topics()
    return rates
