"""Single: one event a batch, from memory, one call after the other, into large tables."""

from __future__ import annotations

from bench.sizes import Sizes
from bench.small import Targets, measure
from bench.table import Row


async def run(sizes: Sizes) -> list[Row]:
    """Measure the cost of an event in a quiet installation."""
    return await measure(1, sizes.calls, sizes.rounds, Targets(p50=0.8, worker=15, postgres=45))
