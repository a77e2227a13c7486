"""Apply batches one after the other, for `bench.small`: `python -m bench.systems.small_process BATCHES`.

It prints `ready` after the warm-up, waits for a line on stdin, and prints the duration of the calls as JSON.
"""

from __future__ import annotations

import json
import pickle
import sys
import time
from pathlib import Path

import uvloop

from service.settings import load_settings
from service.store.engine import make_engine
from tests.support.applier import Partitions
from tests.support.model import LEVELED_UP, Meant

_WARM_UP = 300
"""Batches before the first that counts. They open connections and prepare statements."""


async def _apply_all(batches: list[list[Meant]]) -> None:
    engine = make_engine(load_settings(), pool_size=1)
    partitions = await Partitions(engine).begin()
    records = [partitions.records(batch) for batch in batches]
    for batch in records[:_WARM_UP]:
        await partitions.apply(LEVELED_UP, batch)
    print("ready", flush=True)
    sys.stdin.readline()
    took: list[float] = []
    cpu = time.process_time()
    for batch in records[_WARM_UP:]:
        began = time.perf_counter()
        await partitions.apply(LEVELED_UP, batch)
        took.append((time.perf_counter() - began) * 1000)
    print(json.dumps({"cpu": time.process_time() - cpu, "took": took}), flush=True)
    sys.stdin.readline()
    await engine.dispose()


if __name__ == "__main__":
    uvloop.run(_apply_all(pickle.loads(Path(sys.argv[1]).read_bytes())))  # noqa: S301 - our own file
