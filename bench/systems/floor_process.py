"""The process of `bench.systems.floor`: `python -m bench.systems.floor_process RECORDS`."""

from __future__ import annotations

import asyncio
import pickle
import sys
from pathlib import Path

import uvloop

from service.apply.call import Call, call_alone, license_target
from service.apply.progress import Way
from service.core.outcomes import LevelEvent, microseconds
from service.levels import read_snapshot
from service.settings import Settings, load_settings
from service.store.engine import make_engine
from service.stream.positions import Batch
from tests.support.model import Meant


async def _write_all(settings: Settings, batches: list[list[LevelEvent]]) -> None:
    target, engine = license_target({}), make_engine(settings, pool_size=1)
    async with engine.connect() as conn:
        snapshot = await read_snapshot(conn)
    for events in batches:
        await call_alone(engine, Call(target, snapshot, Batch([], {}, {}), {}, events, Way.QUICK, {}))
    await engine.dispose()


def _batches(partitions: list[list[Meant]], size: int) -> list[list[LevelEvent]]:
    """Return batches like those of a consumer's polls: a batch of each partition in turn."""
    batches = [ones[start : start + size] for start in range(0, max(map(len, partitions)), size) for ones in partitions]
    return [[_event(*numbered) for numbered in enumerate(batch)] for batch in batches if batch]


def _event(index: int, meant: Meant) -> LevelEvent:
    at = microseconds(meant.at)
    origin = f"ProgressLeveledUp {meant.source} {meant.id}"
    return LevelEvent(index, meant.user, meant.specialization, meant.to_level, at, at, origin)


if __name__ == "__main__":
    SETTINGS = load_settings()
    RECORDS = pickle.loads(Path(sys.argv[1]).read_bytes())  # noqa: S301 - our own file
    uvloop.run(_write_all(SETTINGS, _batches(RECORDS, SETTINGS.batch_max_records)))
    asyncio.run(asyncio.sleep(600))  # the benchmark reads its memory after the last license, and ends it
