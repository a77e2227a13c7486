"""Judge an overview: three questions, each with its level and the reasons for it. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Literal

from service.admin.overview import MAX_PENDING, Overview, Partition
from service.core.names import counted

STUCK_AFTER = timedelta(minutes=1)
"""Must exceed the time that a batch, a rebalance or a turn of the relay takes."""
_BAD_ENDS = {"stopped_by_breaker": "was stopped by the breaker"}
SURE_AFTER = timedelta(seconds=15)
"""Three measurements of the lag. Records that have waited less than this may still be applied in time."""
Question = Literal["working", "drift", "stuck"]
Topic = Literal["health", "runs", "dead_letters", "consumers", "outbox"]


class Level(IntEnum):
    """The severity of a reason."""

    GOOD = 0
    LOOK = 1
    BAD = 2


@dataclass(frozen=True, slots=True)
class Attention:
    """One thing that needs attention. `topic` is the part of the page that shows more."""

    question: Question
    level: Level
    text: str
    topic: Topic


@dataclass(frozen=True, slots=True)
class OverviewVerdict:
    """All reasons, the worst first. Without reasons all is well."""

    reasons: list[Attention]

    @property
    def level(self) -> Level:
        """Return the worst level of all reasons."""
        return max((reason.level for reason in self.reasons), default=Level.GOOD)

    def of(self, question: Question) -> list[Attention]:
        """Return the reasons that answer a question."""
        return [reason for reason in self.reasons if reason.question == question]

    def level_of(self, question: Question) -> Level:
        """Return the worst level of a question's reasons."""
        return max((reason.level for reason in self.of(question)), default=Level.GOOD)


def judge(seen: Overview, every: timedelta) -> OverviewVerdict:
    """Return what is wrong. `every` is the period of complete scans (RECONCILE_EVERY); zero where it is off."""
    reasons = [*_working(seen), *_drift(seen), *_scans(seen, every), *_stuck(seen)]
    return OverviewVerdict(sorted(reasons, key=lambda reason: -reason.level))


def _working(seen: Overview) -> list[Attention]:
    found = [
        Attention("working", Level.BAD, f"{component}: {problem}", "health")
        for component, problems in seen.problems.items()
        for problem in problems
    ]
    if seen.lost:
        lost = f"Kafka's retention deleted {seen.lost:,} records before this process read them"
        found.append(Attention("working", Level.BAD, lost, "consumers"))
    return found


def _drift(seen: Overview) -> list[Attention]:
    if seen.scan is None or not seen.scan.pairs:
        return []
    text = counted(seen.scan.pairs, "pair disagrees", "pairs disagree")
    return [Attention("drift", Level.LOOK, f"{text}, as of the last complete scan", "runs")]


def _scans(seen: Overview, every: timedelta) -> list[Attention]:
    found = []
    if seen.last_end is not None and seen.last_end.status in _BAD_ENDS:
        text = f"The last run over everything {_BAD_ENDS[seen.last_end.status]}"
        found.append(Attention("drift", Level.BAD, text, "runs"))
    if seen.last_end is not None and (number := seen.last_end.unconfirmed):
        text = f"The last run over everything could not confirm {counted(number, 'pair', 'pairs')}"
        found.append(Attention("drift", Level.LOOK, f"{text}, as the appliers did not catch up in time", "runs"))
    if every and seen.scan is None:
        text = "No complete scan has ended yet, so it is not known whether pairs disagree"
        found.append(Attention("drift", Level.LOOK, text, "runs"))
    if every and seen.scan is not None and (age := seen.now - seen.scan.finished_at) > 2 * every:
        text = f"The last complete scan ended {_in_largest_unit(age)} ago; one is due every {_in_largest_unit(every)}"
        found.append(Attention("drift", Level.BAD, text, "runs"))
    return found


def _stuck(seen: Overview) -> list[Attention]:
    found = [_waiting_reason(one, seen.now) for one in seen.partitions or () if _has_waiting_records(one, seen.now)]
    oldest = seen.outbox.oldest
    if oldest is not None and seen.now - oldest > STUCK_AFTER:
        at_least = "at least " if seen.outbox.pending >= MAX_PENDING else ""
        waiting = counted(seen.outbox.pending, "event waits", "events wait")
        text = f"{at_least}{waiting} in the outbox, the oldest for {_in_largest_unit(seen.now - oldest)}"
        found.append(Attention("stuck", Level.BAD, text, "outbox"))
    if letters := sum(reason.count for reason in seen.letters):
        text = counted(letters, "dead letter is open", "dead letters are open")
        found.append(Attention("stuck", Level.LOOK, text, "dead_letters"))
    return found


def _has_waiting_records(one: Partition, now: datetime) -> bool:
    return one.lag > 0 and (one.moved_at is None or now - one.moved_at > STUCK_AFTER)


def _waiting_reason(one: Partition, now: datetime) -> Attention:
    waiting = f"{one.topic}-{one.number}: {counted(one.lag, 'record waits', 'records wait')}"
    if one.waits_since is None or now - one.waits_since < SURE_AFTER:
        text = f"{waiting}; the next {int(SURE_AFTER.total_seconds())} seconds show whether the partition moves"
        return Attention("stuck", Level.LOOK, text, "consumers")
    since = "yet" if one.moved_at is None else f"for {_in_largest_unit(now - one.moved_at)}"
    return Attention("stuck", Level.BAD, f"{waiting}, none has been applied {since}", "consumers")


def _in_largest_unit(time: timedelta) -> str:
    """Return a length of time in its largest unit."""
    for seconds, unit in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if number := int(time.total_seconds() // seconds):
            return f"{number} {unit}{'' if number == 1 else 's'}"
    return "a moment"
