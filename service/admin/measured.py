"""What this process has measured: its own metrics, without a question to anybody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

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
    return {(at["topic"], int(at["partition"])): int(value) for at, value in metrics.samples(metrics.CONSUMER_LAG)}


def lost() -> int:
    """Records that Kafka's retention removed before they were read."""
    return int(sum(value for _, value in metrics.samples(metrics.RECORDS_LOST, "_total")))
