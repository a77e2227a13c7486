"""One line a batch, one for all of its dead letters, and the metrics: reported after the commit, when they are true."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import structlog

from events import LICENSE_ADVANCED_TOPIC, LICENSE_ADVANCED_TYPE, PROGRESS_LEVELED_UP_TOPIC, PROGRESS_LEVELED_UP_TYPE
from service.apply.batch import Applied
from service.core.outcomes import DeadLetter, LevelEvent, Outcome
from service.stream.positions import Batch
from service.telemetry import metrics

log = structlog.get_logger(__name__)
_TYPES = {PROGRESS_LEVELED_UP_TOPIC: PROGRESS_LEVELED_UP_TYPE, LICENSE_ADVANCED_TOPIC: LICENSE_ADVANCED_TYPE}
_FIRST_LETTERS = 3
"""Dead letters of a batch that its line describes; the table has all of them."""
_WRITTEN = (Outcome.APPLIED, Outcome.CREATED)


def report_batch(done: Batch, applied: Applied, seconds: float) -> None:
    """Count and log one committed batch: nothing where somebody else's locks kept all of it."""
    if applied.left and not applied.outcomes:
        return
    topic = done.records[0].topic
    kind, counts = _TYPES[topic], Counter(applied.outcomes.values())
    for outcome, count in counts.items():
        metrics.EVENTS.labels(kind, outcome.value).inc(count)
    metrics.BATCH_SECONDS.labels(kind).observe(seconds)
    metrics.BATCH_RECORDS.labels(kind).observe(len(applied.outcomes))
    _observe_delays(kind, applied)
    if applied.letters:
        first = [_about(done, letter) for letter in applied.letters[:_FIRST_LETTERS]]
        log.warning("dead letters", topic=topic, count=len(applied.letters), first=first)
    named = {outcome.value: count for outcome, count in counts.items()}
    log.info("batch applied", topic=topic, records=len(applied.outcomes), seconds=round(seconds, 4), **named)


def _about(done: Batch, letter: DeadLetter) -> dict[str, object]:
    record = done.records[letter.index]
    at = {"partition": record.partition, "offset": record.offset}
    return at | {"reason": letter.reason.value, "detail": letter.detail[:500]}


def _observe_delays(kind: str, applied: Applied) -> None:
    now, outcomes = datetime.now(UTC).timestamp(), applied.outcomes
    written = (
        item for item in applied.decoded if isinstance(item, LevelEvent) and outcomes.get(item.index) in _WRITTEN
    )
    metrics.EVENT_DELAY.observe_all(kind, (max(0.0, now - event.occurred_us / 1_000_000) for event in written))
