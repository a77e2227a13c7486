"""Five: batches of five events, from memory, one call after the other, into large tables."""

from __future__ import annotations

from bench.sizes import Sizes
from bench.small import Targets, measure
from bench.table import Row


async def run(sizes: Sizes) -> list[Row]:
    """Measure the cost of a batch in an installation with some load."""
    return await measure(5, sizes.calls, sizes.rounds, Targets(worker=6))
