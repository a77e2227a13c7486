"""Measure small batches: one connection applies them from memory, one after the other, into large tables. No Kafka."""

from __future__ import annotations

import asyncio
import json
import pickle
import sys
from dataclasses import dataclass
from typing import Any

from bench.check import check
from bench.meter import cpu_of_all
from bench.quantiles import quantile
from bench.servers import Servers, connect, running_servers
from bench.table import Row
from service.settings import Settings
from tests.support.load import Load, make_load
from tests.support.model import LEVELED_UP, Meant, Model
from tests.support.process import serve_environment
from tests.support.records import MAXIMUM

_GROWN = 100_000
_FILL = """
    SET session_replication_role = replica;  -- no foreign key is looked up for rows that are made to fit
    INSERT INTO public.user_licenses (user_id, specialization_type, current_level, max_achieved_level, started_at)
    SELECT g, 'INTERNSHIP', 1 + g % 3, 3, now() FROM generate_series(1, {users}) g;
    SET session_replication_role = DEFAULT;
"""
_EMPTY = "DELETE FROM public.user_licenses WHERE specialization_type = 'INTERNSHIP'"
_STEP = 100_000


@dataclass(frozen=True)
class Calls:
    """The figures of one round: two quantiles of a call in milliseconds, and CPU in seconds for 100,000 events."""

    p50: float
    p99: float
    worker: float
    postgres: float


@dataclass(frozen=True)
class Targets:
    """The highest allowed medians; None where there is no target."""

    p50: float | None = None
    worker: float | None = None
    postgres: float | None = None


async def measure(size: int, batches: int, rounds: int, targets: Targets) -> list[Row]:
    """Apply the same `batches` batches of `size` events in each round.

    Raises:
        AssertionError: the tables differ from the model.
    """
    events = make_load(Load(size * batches, max(1, size * batches // 6), seed=1, kinds=(LEVELED_UP,)))
    groups = [events[start : start + size] for start in range(0, len(events), size)]
    found: list[Calls] = []
    async with running_servers() as servers:
        template = await servers.template(_GROWN, _FILL.format(users=_GROWN))
        for _ in range(rounds):
            settings = await servers.new(template)
            found.append(await _once(servers, settings, groups))
            await _check(settings, events)
            await servers.drop(settings)
            print(found[-1], file=sys.stderr, flush=True)
    name = "one event a batch" if size == 1 else f"batches of {size}"
    return [
        Row(
            f"{name}: call, p50", tuple(c.p50 for c in found), "ms", at_most=targets.p50, note=f"{len(groups):,} calls"
        ),
        Row(f"{name}: call, p99", tuple(c.p99 for c in found), "ms"),
        Row(f"{name}: CPU of the process", tuple(c.worker for c in found), "s per 100,000", at_most=targets.worker),
        Row(f"{name}: CPU of PostgreSQL", tuple(c.postgres for c in found), "s per 100,000", at_most=targets.postgres),
    ]


async def _once(servers: Servers, settings: Settings, groups: list[list[Meant]]) -> Calls:
    file = servers.folder / "batches"
    await asyncio.to_thread(lambda: file.write_bytes(pickle.dumps(groups)))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.systems.small_process", str(file)),
        env=serve_environment(settings),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    assert process.stdin is not None and process.stdout is not None  # noqa: PT018, S101 - both are pipes
    assert await process.stdout.readline() == b"ready\n"  # noqa: S101 - the figures of a failed process do not count
    before = cpu_of_all(servers.postgres_process)
    process.stdin.write(b"go\n")
    answer: dict[str, Any] = json.loads(await process.stdout.readline())
    postgres = cpu_of_all(servers.postgres_process) - before
    process.stdin.write(b"end\n")
    await process.wait()
    took: list[float] = answer["took"]
    steps = len(took) * len(groups[0]) / _STEP
    p50, p99 = (round(quantile(took, share), 3) for share in (0.5, 0.99))
    return Calls(p50, p99, round(answer["cpu"] / steps, 2), round(postgres / steps, 2))


async def _check(settings: Settings, events: list[Meant]) -> None:
    model = Model(MAXIMUM, set(range(1, _GROWN + 1)))
    for one in events:
        model.apply(one)
    connection = await connect(settings)
    await connection.execute(_EMPTY)
    await connection.close()
    comparison = await check(settings, model)
    assert comparison.right, comparison  # noqa: S101 - the figures of wrong tables do not count
