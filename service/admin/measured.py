"""What this process has measured: its own metrics, without a question to anybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from service import metrics

Moves = Mapping[tuple[str, int], datetime]
"""When the position of a topic's partition was stored last."""


@dataclass(frozen=True, slots=True)
class Partition:
    """How far one partition of events is from being applied."""

    topic: str
    number: int
    lag: int
    """Records, as this process measured it seconds ago."""
    moved_at: datetime | None
    """When its position was stored last."""
    waits_since: datetime | None
    """Since when this process has seen records wait there without a move; None where none wait."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Seconds from when an event occurred to when its effect was committed, as bounds of the histogram's buckets."""

    half: float
    """At least half of the events took no longer; infinite beyond the last bucket."""
    most: float
    """At least 99 % of the events took no longer."""


@dataclass(frozen=True, slots=True)
class Events:
    """What the appliers of this process have decided since it started."""

    outcomes: dict[str, dict[str, int]]
    """By event type: how many of each outcome."""
    delay: dict[str, Delay]
    """By event type, where one was applied."""


class Waits:
    """Remembers since when records have waited: one on its way after an idle hour is not stuck."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, int], tuple[datetime | None, datetime]] = {}

    def see(self, lag: Mapping[tuple[str, int], int], moved: Moves, now: datetime) -> list[Partition]:
        """The partitions as they are now."""
        waiting = [(at, moved.get(at)) for at, records in lag.items() if records]
        self._since = {at: self._unmoved(at, position_at) or (position_at, now) for at, position_at in waiting}
        since = {at: begun for at, (_, begun) in self._since.items()}
        return [Partition(*at, records, moved.get(at), since.get(at)) for at, records in sorted(lag.items())]

    def _unmoved(self, at: tuple[str, int], moved_at: datetime | None) -> tuple[datetime | None, datetime] | None:
        known = self._since.get(at)
        return known if known is not None and known[0] == moved_at else None


def lag() -> dict[tuple[str, int], int]:
    """Records that wait, by topic and partition; nothing until it was measured for the first time."""
    return {(at["topic"], int(at["partition"])): int(value) for at, value in _samples(metrics.CONSUMER_LAG)}


def events() -> Events:
    """What the appliers have decided."""
    outcomes: dict[str, dict[str, int]] = {}
    for labels, value in _samples(metrics.EVENTS, "_total"):
        outcomes.setdefault(labels["type"], {})[labels["outcome"]] = int(value)
    buckets: dict[str, list[tuple[float, float]]] = {}
    for labels, value in _samples(metrics.EVENT_DELAY, "_bucket"):
        buckets.setdefault(labels["type"], []).append((float(labels["le"]), value))
    return Events(outcomes, {kind: delay_of(found) for kind, found in buckets.items() if found[-1][1]})


def delay_of(buckets: Sequence[tuple[float, float]]) -> Delay:
    """Read the delay from a histogram's bounds and cumulative counts, the smallest bound first."""
    return Delay(_within(buckets, 0.5), _within(buckets, 0.99))


def _within(buckets: Sequence[tuple[float, float]], share: float) -> float:
    """Return the first bound that at least this share of all observations keeps."""
    _, total = buckets[-1]
    return next(bound for bound, count in buckets if count >= share * total)


def lost() -> int:
    """Records that Kafka's retention removed before they were read."""
    return int(sum(value for _, value in _samples(metrics.RECORDS_LOST, "_total")))


def _samples(metric: Any, suffix: str = "") -> list[tuple[dict[str, str], float]]:
    """The metric's samples of this process: labels and value."""
    return [
        (sample.labels, sample.value)
        for family in metric.collect()
        for sample in family.samples
        if sample.name == family.name + suffix
    ]
