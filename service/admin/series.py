"""The minute samples as series: the last hour in minutes, and the last day in quarters of an hour."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

KEPT = timedelta(days=1)
_READ_AGAIN = timedelta(minutes=3)
"""Processes add to a minute until shortly after its end, so the newest rows are read again."""
_FRESH = timedelta(seconds=10)
"""Samples come once a minute, so within this time the last series is returned again without a query."""
_READ = text("""
    SELECT minute, events, delays, lag, drift, dead_letters FROM levelsync.minute_samples
     WHERE minute >= :since ORDER BY minute
""")


@dataclass(frozen=True, slots=True)
class Delay:
    """Seconds from an event's occurrence to the commit of its effect, as bounds of the histogram's buckets."""

    p50: float
    """The median: at least half of the events took no longer. Infinite where that is beyond the last bucket."""
    p99: float
    """At least 99 % of the events took no longer."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One minute of all processes: counts by "type outcome" and by "type bound", and the gauges' peaks."""

    minute: datetime
    events: Counter[str]
    delays: Counter[str]
    lag: int | None
    drift: int | None
    dead_letters: int | None


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a chart: one or several minutes. Values are None or empty where no process stored a sample."""

    at: datetime
    seconds: int
    """The length of time that the point's samples cover."""
    outcomes: Counter[str]
    delay: Delay | None
    lag: int | None
    drift: int | None
    dead_letters: int | None


@dataclass(frozen=True, slots=True)
class Span:
    """A period until now, as points of equal length, the oldest first."""

    name: str
    step: timedelta
    points: list[Point]


@dataclass(frozen=True, slots=True)
class TypeCount:
    """The events of one type in the last day, by outcome, and their delay."""

    type: str
    outcomes: list[tuple[str, int, int]]
    """Outcome, events of the last hour, events of the last day."""
    delay: Delay | None


@dataclass(frozen=True, slots=True)
class Series:
    """The data of the charts."""

    now: datetime
    hour: Span
    day: Span
    types: list[TypeCount]
    measured: bool
    """Whether the last day has a sample."""


class History:
    """The samples of the last day, in the memory of one process. Each read queries only the newest minutes."""

    def __init__(self) -> None:
        self._samples: dict[datetime, Sample] = {}
        self._last: Series | None = None

    async def read(self, conn: AsyncConnection, now: datetime) -> Series:
        """Read the new samples and return the series up to `now`."""
        if self._last is not None and now - self._last.now < _FRESH:
            return self._last
        since = max(self._samples, default=now - KEPT) - _READ_AGAIN
        found = (_sample(row) for row in await conn.execute(_READ, {"since": since}))
        self._samples |= {sample.minute: sample for sample in found}
        self._samples = {at: sample for at, sample in self._samples.items() if at > now - KEPT - timedelta(hours=1)}
        self._last = series_of(list(self._samples.values()), now)
        return self._last


def series_of(samples: Sequence[Sample], now: datetime) -> Series:
    """Return the series of samples, which may be in any order."""
    hour = _span("last hour", samples, now, timedelta(minutes=1), 60)
    day = _span("last day", samples, now, timedelta(minutes=15), 96)
    last = hour.points[-1].at
    recent = [one for one in samples if last - KEPT < one.minute <= last]
    return Series(now, hour, day, _types(recent, hour.points[0].at), bool(recent))


def delay_of(counts: Counter[str]) -> Delay | None:
    """Return the delay, given the number of events of each bucket by its bound; None where there are no events."""
    buckets = sorted((float(bound), number) for bound, number in counts.items())
    totals = list(accumulate(number for _, number in buckets))
    if not totals or not totals[-1]:
        return None
    reached = list(zip((bound for bound, _ in buckets), totals, strict=True))
    return Delay(_within(reached, 0.5), _within(reached, 0.99))


def _within(reached: Sequence[tuple[float, int]], share: float) -> float:
    """Return the smallest bound that at least this share of all events did not exceed."""
    total = reached[-1][1]
    return next(bound for bound, number in reached if number >= share * total)


def _span(name: str, samples: Iterable[Sample], now: datetime, step: timedelta, number: int) -> Span:
    last = _floor(now - timedelta(minutes=1), step)
    starts = [last - step * back for back in range(number - 1, -1, -1)]
    bins: dict[datetime, list[Sample]] = {at: [] for at in starts}
    for sample in samples:
        if (own := bins.get(_floor(sample.minute, step))) is not None:
            own.append(sample)
    return Span(name, step, [_point(at, found) for at, found in bins.items()])


def _floor(at: datetime, step: timedelta) -> datetime:
    return at - timedelta(seconds=at.timestamp() % step.total_seconds())


def _point(at: datetime, found: Sequence[Sample]) -> Point:
    return Point(
        at,
        60 * len(found),
        _of_all_types(one.events for one in found),
        delay_of(_of_all_types(one.delays for one in found)),
        _peak(one.lag for one in found),
        _peak(one.drift for one in found),
        _peak(one.dead_letters for one in found),
    )


def _peak(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _types(samples: Sequence[Sample], hour_ago: datetime) -> list[TypeCount]:
    day = _by_type(one.events for one in samples)
    hour = _by_type(one.events for one in samples if one.minute >= hour_ago)
    delays = _by_type(one.delays for one in samples)
    return [
        TypeCount(
            kind,
            [(outcome, hour[kind, outcome], number) for (of, outcome), number in sorted(day.items()) if of == kind],
            delay_of(Counter({bound: number for (of, bound), number in delays.items() if of == kind})),
        )
        for kind in sorted({kind for kind, _ in day})
    ]


def _by_type(counts: Iterable[Counter[str]]) -> Counter[tuple[str, str]]:
    """Add up counts by type and outcome, or by type and bound."""
    total: Counter[tuple[str, str]] = Counter()
    for one in counts:
        for name, number in one.items():
            kind, _, word = name.partition(" ")
            total[kind, word] += number
    return total


def _of_all_types(counts: Iterable[Counter[str]]) -> Counter[str]:
    """Add up counts of all types together."""
    total: Counter[str] = Counter()
    for (_, word), number in _by_type(counts).items():
        total[word] += number
    return total


def _sample(row: Any) -> Sample:
    events, delays = (Counter(json.loads(one) if isinstance(one, str) else one) for one in (row.events, row.delays))
    return Sample(row.minute, events, delays, row.lag, row.drift, row.dead_letters)
