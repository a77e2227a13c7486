"""Five: batches of five events, from memory, one call after the other, into grown tables."""

from __future__ import annotations

from bench.sizes import Sizes
from bench.small import Targets, measure
from bench.table import Row


async def run(sizes: Sizes) -> list[Row]:
    """What an installation with some load pays."""
    return await measure(5, sizes.calls, sizes.rounds, Targets(worker=6))
