"""Drain: every system reads the same full topic, in turn. Its tables are compared with the model each time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.check import Comparison, check, model_of
from bench.load import Records, first_of, make_records
from bench.meter import Drained, drain
from bench.servers import Servers, running_servers
from bench.sizes import Sizes
from bench.systems.debezium import AT_ITS_BEST, DEFAULT
from bench.systems.floor import FLOOR
from bench.systems.levelsync import LEVELSYNC
from bench.systems.system import System
from bench.systems.usual import USUAL
from bench.table import Row, ratio
from service.settings import Settings
from tests.support.model import Model

PEERS = {"best": AT_ITS_BEST, "default": DEFAULT, "usual": USUAL, "floor": FLOOR}
_TARGETS = {"Debezium, best": 1.75, "Debezium, default": 2.5, "usual handler": 130, "floor": 0.9}
_MOST_MEMORY = 130
_MOST_CPU = 3.0
_MOST_WORKER_CPU = 0.9


@dataclass(frozen=True)
class Result:
    """The figures of one drain, and the comparison of its tables with the model."""

    drained: Drained
    comparison: Comparison


async def run(sizes: Sizes) -> list[Row]:
    """Measure all systems in turn, `rounds` times.

    Raises:
        AssertionError: the tables of a system that is meant to be exact differ from the model.
    """
    records = make_records(sizes.events)
    systems = (LEVELSYNC, *(PEERS[name] for name in sizes.against))
    shares = {s.name: records if s.share == 1 else first_of(records, int(sizes.events * s.share)) for s in systems}
    models = {name: model_of(share) for name, share in shares.items()}
    results: dict[str, list[Result]] = {system.name: [] for system in systems}
    async with running_servers() as servers:
        template = await servers.template(records.users)
        for system in systems:
            await system.publish(servers, shares[system.name])
        for number in range(sizes.rounds):
            for system in systems:
                settings = await servers.new(template)
                result = await _once(servers, settings, system, shares[system.name], models[system.name])
                await servers.drop(settings)
                results[system.name].append(result)
                _print_round(number, system, result)
    return [*_rows(results)]


async def _once(servers: Servers, settings: Settings, system: System, records: Records, model: Model) -> Result:
    drained = await drain(servers, settings, system, records)
    comparison = await check(settings, model)
    assert comparison.right or not system.exact, f"{system.name} has wrong tables: {comparison}"  # noqa: S101
    return Result(drained, comparison)


def _rows(results: dict[str, list[Result]]) -> Iterator[Row]:
    rates = {name: [result.drained.rate for result in ones] for name, ones in results.items()}
    for name, ones in results.items():
        share = f"{ones[0].drained.events:,} events"
        yield Row(f"{name}: rate", tuple(rates[name]), "events/s", note=share)
    for name, target in ((name, target) for name, target in _TARGETS.items() if name in results):
        yield ratio(f"levelsync : {name}", rates["levelsync"], rates[name], at_least=target)
    for name, ones in results.items():
        yield from _costs(name, ones)
    for name, ones in results.items():
        yield from _comparisons(name, ones)


def _costs(name: str, ones: Sequence[Result]) -> Iterator[Row]:
    def each(read: Callable[[Drained], float]) -> tuple[float, ...]:
        return tuple(read(one.drained) for one in ones)

    both, worker, most = (_MOST_CPU, _MOST_WORKER_CPU, _MOST_MEMORY) if name == "levelsync" else (None, None, None)
    unit = "s per 100,000"
    yield Row(f"{name}: CPU of the process", each(lambda d: d.worker_cpu), unit, at_most=worker)
    yield Row(f"{name}: CPU of PostgreSQL", each(lambda d: d.postgres_cpu), unit)
    yield Row(f"{name}: CPU of both", each(lambda d: round(d.worker_cpu + d.postgres_cpu, 3)), unit, at_most=both)
    yield Row(f"{name}: peak memory", each(lambda d: d.memory), "MB", at_most=most)


def _comparisons(name: str, ones: Sequence[Result]) -> Iterator[Row]:
    wrong = tuple(float(one.comparison.wrong_levels) for one in ones)
    yield Row(
        f"{name}: wrong levels", wrong, f"of {ones[0].comparison.pairs:,}", at_most=0 if name == "levelsync" else None
    )
    every = "every rise" if all(one.comparison.history_equal for one in ones) else "not every rise"
    yield Row(f"{name}: history", tuple(float(one.comparison.history_rows) for one in ones), "rows", note=every)


def _print_round(number: int, system: System, result: Result) -> None:
    drained, comparison = result.drained, result.comparison
    print(f"round {number + 1}, {system.name}: {drained}, {comparison}", file=sys.stderr, flush=True)
