"""The process of `bench.systems.floor`: `python -m bench.systems.floor_process RECORDS`."""

from __future__ import annotations

import asyncio
import pickle
import sys
from pathlib import Path

import uvloop

from service.apply import targets
from service.apply.decide import decide
from service.apply.outcomes import LevelEvent
from service.database.engine import make_engine
from service.settings import Settings, load_settings
from tests.laws.model import Meant


async def _write_all(settings: Settings, batches: list[list[LevelEvent]]) -> None:
    target = targets.license_target({})
    engine = make_engine(settings, pool_size=1)
    for events in batches:
        async with engine.begin() as conn:
            found = await targets.lock_and_find(conn, target, events)
            await targets.write(conn, target, decide(events, found))
    await engine.dispose()


def _batches(partitions: list[list[Meant]], size: int) -> list[list[LevelEvent]]:
    """Batches as a consumer's polls give them: one partition after the other, a batch of each in turn."""
    batches = [ones[start : start + size] for start in range(0, max(map(len, partitions)), size) for ones in partitions]
    return [[_event(*numbered) for numbered in enumerate(batch)] for batch in batches if batch]


def _event(index: int, meant: Meant) -> LevelEvent:
    origin = f"ProgressLeveledUp {meant.source} {meant.id}"
    return LevelEvent(index, meant.user, meant.specialization, meant.to_level, meant.at, meant.at, origin)


if __name__ == "__main__":
    SETTINGS = load_settings()
    RECORDS = pickle.loads(Path(sys.argv[1]).read_bytes())  # noqa: S301 - our own file
    uvloop.run(_write_all(SETTINGS, _batches(RECORDS, SETTINGS.batch_max_records)))
    asyncio.run(asyncio.sleep(600))  # its memory is read after the last license: it is ended from outside
