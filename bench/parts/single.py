"""Single: one event a batch, from memory, one call after the other, into grown tables."""

from __future__ import annotations

from bench.sizes import Sizes
from bench.small import Targets, measure
from bench.table import Row


async def run(sizes: Sizes) -> list[Row]:
    """What a quiet installation pays for each event."""
    return await measure(1, sizes.calls, sizes.rounds, Targets(p50=0.8, worker=15, postgres=45))
