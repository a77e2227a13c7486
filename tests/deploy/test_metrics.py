"""/metrics of a serving process has the documented metrics, and its gauges show the database's state."""

from __future__ import annotations

import re
from typing import get_args

import pytest
from aiokafka import TopicPartition
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.ext.asyncio import AsyncEngine

from events import Direction
from service.core.names import DIRECTIONS, HEALABLE
from service.core.outcomes import Outcome
from service.faults import Kind
from service.process.watch import set_gauges
from service.settings import Settings
from service.stream.positions import set_position
from service.telemetry import metrics
from service.telemetry.metrics import REGISTRY
from tests.support import repository
from tests.support.process import Make
from tests.support.runs import OneWorker
from tests.support.tables import execute, fill
from tests.support.waiting import eventually

PAIR = (7, "PLAYER")
INTERFACE = {
    "levelsync_events_total": {"type", "outcome"},
    "levelsync_event_delay_seconds": {"type"},
    "levelsync_batch_seconds": {"type"},
    "levelsync_batch_records": {"type"},
    "levelsync_consumer_lag_records": {"topic", "partition"},
    "levelsync_dead_letters": {"reason"},
    "levelsync_outbox_pending": set(),
    "levelsync_outbox_oldest_seconds": set(),
    "levelsync_drift_pairs": {"kind", "specialization"},
    "levelsync_drift_scans": set(),
    "levelsync_reconcile_runs_total": {"result"},
    "levelsync_reconcile_last_success_timestamp_seconds": set(),
    "levelsync_reconcile_period_seconds": set(),
    "levelsync_heals_total": {"direction", "kind"},
    "levelsync_retries_total": {"cause"},
    "levelsync_records_lost_total": {"topic", "partition"},
    "levelsync_build_info": {"version", "schema"},
    "levelsync_runbook_info": {"url"},
}
"""What users' own dashboards rely on: names and labels. A change here breaks them."""
_OF_HISTOGRAMS = re.compile(r"(?<=_seconds|_records)_(?:bucket|sum|count)$")


@pytest.mark.usefixtures("topics")
async def test_a_process_that_has_just_started_shows_every_metric_and_no_other(
    settings: Settings, engine: AsyncEngine, levelsync_process: Make
) -> None:
    await execute(engine, "UPDATE user_licenses SET current_level = 8 WHERE user_id = 3")
    changed = {"reconcile_grace": "0s", "runbook_url": "https://wiki.example/levelsync"}
    process = levelsync_process(Settings(_env_file=None, **settings.model_dump(exclude_unset=True) | changed))
    await process.start()
    shown: dict[str, set[str]] = {}

    async def the_first_scan_is_shown() -> bool:
        nonlocal shown
        shown = _samples((await process.get("/metrics"))[1])
        return "levelsync_drift_pairs" in shown and "levelsync_consumer_lag_records" in shown

    await eventually(the_first_scan_is_shown, 60)
    assert shown == INTERFACE


def test_alerts_and_dashboard_ask_only_for_what_is_shown() -> None:
    """A query for another name is an alert that never fires, or an empty panel."""
    asked = [rule["expr"] for rule in repository.rules()] + repository.dashboard_queries()
    known = INTERFACE.keys() | repository.recorded() | {"up"}
    for query in asked:
        named = {_OF_HISTOGRAMS.sub("", name) for name in repository.names(query)}
        assert named, query
        assert named <= known, query


def test_counters_begin_at_zero_with_every_label_that_the_code_can_give() -> None:
    """A forgotten label would begin at 1, and `increase` would not see that step."""
    assert set(metrics.OUTCOMES) == {outcome.value for outcome in Outcome}
    assert get_args(Direction) == DIRECTIONS
    assert set(metrics.CAUSES) == {kind.value for kind in Kind if kind is not Kind.RECORD} | {"kafka_unavailable"}
    samples = [sample.labels for family in metrics.HEALS.collect() for sample in family.samples]
    healed = {(labels["direction"], labels["kind"]) for labels in samples}
    assert healed == {(direction, kind) for direction in get_args(Direction) for kind in HEALABLE}


def _samples(page: str) -> dict[str, set[str]]:
    """Return the metrics of a page with their labels, and each histogram as one metric."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            name = _OF_HISTOGRAMS.sub("", sample.name)
            found.setdefault(name, set()).update(label for label in sample.labels if label != "le")
    return found


async def gauge(engine: AsyncEngine, name: str) -> float | None:
    """Set the gauges as every process does, and return one."""
    async with engine.connect() as conn:
        await set_gauges(conn, {}, "test", {})
    return REGISTRY.get_sample_value(name)


async def test_consecutive_scans_with_drift_are_counted(engine: AsyncEngine, one_worker: OneWorker) -> None:
    await fill(engine, {PAIR: 5}, {PAIR: 5})

    async def scans_after(**request: object) -> float | None:
        await one_worker.finish(await one_worker.request(**request))
        return await gauge(engine, "levelsync_drift_scans")

    assert await scans_after() == 0
    await execute(engine, "UPDATE user_licenses SET current_level = 4")
    assert [await scans_after(), await scans_after(user_id=7), await scans_after()] == [1, 1, 2]
    assert await scans_after(direction="highest", dry_run=False, force=True) == 0


async def test_a_scan_that_confirms_nothing_is_neither_drift_nor_agreement(
    engine: AsyncEngine, one_worker: OneWorker
) -> None:
    """While the appliers are away, the last known value stays."""
    await fill(engine, {PAIR: 5}, {PAIR: 4})
    await one_worker.finish(await one_worker.request())
    unconfirmed = """
        INSERT INTO levelsync.reconcile_runs (id, status, direction, dry_run, force, finished_at, counts)
        VALUES (gen_random_uuid(), 'completed', 'highest', true, false, clock_timestamp(),
                '{"unconfirmed": 1, "left_by": []}')
    """
    await execute(engine, unconfirmed)
    assert await gauge(engine, "levelsync_drift_scans") == 1


async def test_pairs_that_need_a_decision_raise_no_alert(engine: AsyncEngine, one_worker: OneWorker) -> None:
    """It is counted separately (law 8), because every scan would find it."""
    await fill(engine, {PAIR: 9}, {PAIR: 9})
    await one_worker.finish(await one_worker.request())
    assert await gauge(engine, "levelsync_drift_scans") == 0
    labels = {"kind": "out_of_range", "specialization": "PLAYER"}
    assert REGISTRY.get_sample_value("levelsync_drift_pairs", labels) == 1


async def test_the_oldest_event_in_the_outbox_has_an_age(engine: AsyncEngine) -> None:
    await execute(engine, "TRUNCATE levelsync.outbox")
    assert await gauge(engine, "levelsync_outbox_oldest_seconds") == 0
    sent = "('x', now() - interval '10 minutes'), ('x', now())"
    await execute(engine, f"INSERT INTO levelsync.outbox (topic, created_at) VALUES {sent}")
    assert 600 <= (await gauge(engine, "levelsync_outbox_oldest_seconds") or 0) < 660
    assert REGISTRY.get_sample_value("levelsync_outbox_pending") == 2


async def test_the_lag_of_a_topic_created_again_counts_every_record_of_it(engine: AsyncEngine) -> None:
    """The position row belongs to the deleted topic until a consumer starts the partition again."""
    partition = TopicPartition("progress.leveled-up", 0)
    lag = ("levelsync_consumer_lag_records", {"topic": "progress.leveled-up", "partition": "0"})
    async with engine.begin() as conn:
        await set_position(conn, partition, 9, "test", "deleted")
        await set_gauges(conn, {partition: 5}, "test", {partition.topic: "present"})
        assert REGISTRY.get_sample_value(*lag) == 5
        await set_gauges(conn, {partition: 11}, "test", {partition.topic: "deleted"})
        assert REGISTRY.get_sample_value(*lag) == 2
