"""The previous release, as a program with that release's code first on the path.

It reads a JSON document (`batches`, `syncs`) from stdin, applies all of it, and writes its retries.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from importlib import import_module
from typing import Any

from aiokafka import TopicPartition

PARTITION = 1
_batch: Any = import_module("service.apply.batch")
_targets: Any = import_module("service.apply.targets")
_positions: Any = import_module("service.apply.positions")
_decode: Any = import_module("service.apply.decode")
_faults: Any = import_module("service.database.faults")
_records: Any = import_module("tests.laws.records")
_model: Any = import_module("tests.laws.model")
_sync: Any = import_module("service.sync")
_engine: Any = import_module("service.database.engine")
_settings: Any = import_module("service.settings")
retries: list[str] = []


async def main() -> None:
    """Apply both kinds of events and the syncs at once."""
    work = json.load(sys.stdin)
    settings = _settings.Settings(_env_file=None, database_url=sys.argv[1])
    engine = _engine.make_engine(settings)
    targets = {"leveled-up": _targets.license_target({}), "license-advanced": _targets.progress_target({})}
    batches = [(kind, [batch for of, batch in work["batches"] if of == kind]) for kind in targets]
    await asyncio.gather(
        *(_apply_all(engine, kind, targets[kind], own) for kind, own in batches), _sync_all(engine, work["syncs"])
    )
    await engine.dispose()
    print(json.dumps({"file": _batch.__file__, "retries": retries}))  # noqa: T201 - the answer


async def _apply_all(engine: Any, kind: str, target: Any, batches: list[list[Any]]) -> None:
    applier, tp, offset = _batch.Applier(engine, target), TopicPartition(_records.TOPIC[kind], PARTITION), 0
    async with engine.begin() as conn:
        await _positions.set_position(conn, tp, 0, "")
    for batch in batches:
        meant = [
            _model.Meant(kind, user, name, level, datetime.fromisoformat(at), "/test", event)
            for user, name, level, at, event in batch
        ]
        records = [_records.as_record(one, offset + index, PARTITION) for index, one in enumerate(meant)]
        one_batch = _batch.Batch(records, {tp: offset}, {tp: offset + len(records)})
        await _until_done(lambda b=one_batch, r=records: applier.apply(b, _decode.decode(r)))  # type: ignore[misc]
        offset += len(records)


async def _sync_all(engine: Any, syncs: list[list[Any]]) -> None:
    service = _sync.ProgressLicenseSyncService(engine)
    for user, direction in syncs:
        await service.sync_pair(user, "PLAYER", direction)


async def _until_done(attempt: Callable[[], Awaitable[Any]]) -> None:
    """Retry transient faults and conflicts, as a consumer does."""
    while True:
        try:
            await attempt()
        except Exception as error:
            fault = _faults.read_fault(error)
            if fault.kind.name not in {"PASSING", "CONFLICT"}:
                raise
            retries.append(fault.sqlstate)
        else:
            return


if __name__ == "__main__":
    asyncio.run(main())
