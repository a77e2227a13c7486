"""The work of the role `apply`: the level events of one topic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.apply import report
from service.apply.batch import Applied, Applier, Batch
from service.apply.decode import decode
from service.apply.outcomes import DeadLetter, LevelEvent
from service.apply.quick import Record

Decoded = Sequence[LevelEvent | DeadLetter]


@dataclass(frozen=True, slots=True)
class EventWork:
    """Decode, apply, report (`service.apply.subscriber.Work`)."""

    topic: str
    applier: Applier

    def decode(self, records: Sequence[Record]) -> Decoded:
        """Events and dead letters, in the records' order."""
        return decode(records)

    async def apply(self, batch: Batch, decoded: Decoded) -> Applied:
        """One transaction (`Applier.apply`)."""
        return await self.applier.apply(batch, decoded)

    def report(self, batch: Batch, decoded: Decoded, applied: Applied, seconds: float) -> None:
        """Metrics and log lines (`service.apply.report`)."""
        report.batch(self.topic, batch, decoded, applied, seconds)
