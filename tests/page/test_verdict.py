"""The verdict of the overview, a pure function, in every case."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.admin.overview import Outbox, Overview, Partition, RunEnd, Scan, Waits
from service.admin.series import series_of
from service.admin.verdict import judge
from service.dead_letters import ReasonCount

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
EVERY = timedelta(hours=6)
WELL: dict[str, Any] = {
    "now": NOW,
    "problems": {},
    "partitions": [Partition("progress.leveled-up", 0, 0, NOW - timedelta(days=3), None)],
    "outbox": Outbox(0, None),
    "scan": Scan("run", NOW - timedelta(hours=11), []),
    "last_end": RunEnd("completed", 0),
    "running": [],
    "letters": [],
    "series": series_of([], NOW),
    "lost": 0,
}


def ago(**length: float) -> datetime:
    return NOW - timedelta(**length)


def waiting(records: int, moved: datetime | None, since: datetime | None) -> dict[str, Any]:
    return {"partitions": [Partition("progress.leveled-up", 2, records, moved, since)]}


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        ({"problems": {"kafka": ["no answer"]}}, "working BAD: kafka: no answer"),
        ({"lost": 2}, "working BAD: Kafka's retention deleted 2 records before this process read them"),
        (
            {"scan": Scan("run", ago(hours=1), [("mismatched", "PLAYER", 2), ("missing_license", "COACH", 1)])},
            "drift LOOK: 3 pairs disagree, as of the last complete scan",
        ),
        ({"scan": None}, "drift LOOK: No complete scan has ended yet, so it is not known whether pairs disagree"),
        (
            {"scan": Scan("run", ago(hours=13), [])},
            "drift BAD: The last complete scan ended 13 hours ago; one is due every 6 hours",
        ),
        (
            {"last_end": RunEnd("stopped_by_breaker", 0)},
            "drift BAD: The last run over everything was stopped by the breaker",
        ),
        (
            {"last_end": RunEnd("completed", 2)},
            (
                "drift LOOK: The last run over everything could not confirm 2 pairs, "
                "as the appliers did not catch up in time"
            ),
        ),
        (
            waiting(5, ago(hours=3), ago(seconds=5)),
            "stuck LOOK: progress.leveled-up-2: 5 records wait; the next 15 seconds show whether the partition moves",
        ),
        (
            waiting(1, ago(hours=3), ago(seconds=15)),
            "stuck BAD: progress.leveled-up-2: 1 record waits, none has been applied for 3 hours",
        ),
        (
            waiting(7, None, ago(minutes=1)),
            "stuck BAD: progress.leveled-up-2: 7 records wait, none has been applied yet",
        ),
        ({"outbox": Outbox(1, ago(minutes=2))}, "stuck BAD: 1 event waits in the outbox, the oldest for 2 minutes"),
        (
            {"outbox": Outbox(100_000, ago(days=2))},
            "stuck BAD: at least 100,000 events wait in the outbox, the oldest for 2 days",
        ),
        ({"letters": [ReasonCount("malformed", 1, NOW, NOW)]}, "stuck LOOK: 1 dead letter is open"),
    ],
)
def test_each_thing_that_is_wrong_is_named_once(seen: dict[str, Any], reason: str) -> None:
    verdict = judge(Overview(**(WELL | seen)), EVERY)
    assert [f"{one.question} {one.level.name}: {one.text}" for one in verdict.reasons] == [reason]


@pytest.mark.parametrize(
    "seen",
    [
        {},
        waiting(5, ago(seconds=30), ago(seconds=30)),
        {"partitions": None},
        {"outbox": Outbox(3, ago(seconds=59))},
    ],
)
def test_what_moves_or_is_not_known_is_no_reason(seen: dict[str, Any]) -> None:
    assert judge(Overview(**(WELL | seen)), EVERY).reasons == []


def test_without_a_schedule_no_scan_is_due() -> None:
    seen = Overview(**(WELL | {"scan": Scan("run", ago(days=90), [])}))
    assert judge(seen, timedelta(0)).reasons == []


def test_the_worst_comes_first() -> None:
    seen = {"letters": [ReasonCount("malformed", 2, NOW, NOW)], "problems": {"kafka": ["no answer"]}}
    verdict = judge(Overview(**(WELL | seen)), EVERY)
    assert [reason.level.name for reason in verdict.reasons] == ["BAD", "LOOK"]
    assert (verdict.level.name, verdict.level_of("drift").name) == ("BAD", "GOOD")


def test_waiting_restarts_with_every_applied_record() -> None:
    waits, first, moved = Waits(), ("progress.leveled-up", 0), ago(hours=1)
    assert waits.see({first: 5}, {first: moved}, NOW)[0].waits_since == NOW
    later = NOW + timedelta(seconds=20)
    assert waits.see({first: 6}, {first: moved}, later)[0].waits_since == NOW
    assert waits.see({first: 6}, {first: later}, later)[0].waits_since == later
    assert waits.see({first: 0}, {first: later}, later)[0].waits_since is None
    assert waits.see({first: 1}, {first: later}, later)[0].waits_since == later
