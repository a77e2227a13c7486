"""Both topics from Kafka to both tables, and how the service reports it."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from service.stream.positions import Batch
from tests.support import applying, topics
from tests.support.applying import Metrics, labels, running
from tests.support.load import Load, Slot, by_slot, make_load
from tests.support.model import ADVANCED, LEVELED_UP, Meant, Model
from tests.support.published import Setup
from tests.support.records import MAXIMUM, TOPIC, as_sent
from tests.support.tables import assert_equal_to, everything, history, licenses, read
from tests.support.topics import publish, send
from tests.support.waiting import eventually

pytestmark = pytest.mark.real_broker
TYPE = "progress.leveled-up.v1"
POSITIONS = "SELECT topic, partition, next_offset, cluster_id FROM levelsync.applied_offsets ORDER BY 1, 2"
ONLY_ABORTED = (TOPIC[ADVANCED], 3)
OUTCOMES = {"created", "applied", "equal", "ahead", "superseded", "dead_lettered"}


async def test_both_topics_are_applied_committed_counted_and_logged(setup: Setup, log: list[Any]) -> None:
    """Laws 1 and 3: the tables are the model's, and the position rows equal the commits and Kafka's ends."""
    meant = make_load(Load(2000, 100, seed=1, bad=0.01))
    async with running(setup.settings) as service:
        before = await applying.metrics(service)
        await setup.publish(meant)
        await applying.caught_up(setup.settings, setup.engine)
        await setup.assert_consistent()
        assert await applying.problems(service) == {}
        assert (await applying.get(service, "/livez"))[0] == 200
        await eventually(lambda: applying.has_no_lag(service))
        await _assert_counted(setup, meant, applying.since(before, await applying.metrics(service)))
        _assert_logged(log, meant, len(await setup.letters()))


async def _assert_counted(setup: Setup, meant: list[Meant], counted: Metrics) -> None:
    """Compare `events_total` by outcome, and the histograms."""
    created, rises = len(await licenses(setup.engine)), len(await history(setup.engine))
    letters = [letter for letter in await setup.letters() if letter[0] == "progress.leveled-up"]

    def events(outcome: str) -> float:
        return counted["levelsync_events_total", labels(type=TYPE, outcome=outcome)]

    assert (events("created"), events("applied")) == (created, rises - created)
    assert events("dead_lettered") == len(letters) > 0
    assert sum(map(events, OUTCOMES)) == sum(one.kind == LEVELED_UP for one in meant)
    assert counted["levelsync_event_delay_seconds_count", labels(type=TYPE)] == rises
    assert counted["levelsync_batch_records_sum", labels(type=TYPE)] == sum(one.kind == LEVELED_UP for one in meant)


def _assert_logged(log: list[Any], meant: list[Meant], letters: int) -> None:
    """Compare the lines of the batches, with their outcomes, and of their dead letters."""
    batches = [line for line in log if line["event"] == "batch applied"]
    assert sum(line["records"] for line in batches) == len(meant)
    for line in batches:
        assert sum(line[name] for name in OUTCOMES & line.keys()) == line["records"]
    assert sum(line["count"] for line in log if line["event"] == "dead letters") == letters
    assert [line["event"] for line in log].count("ready") == 1


async def test_a_group_reset_to_the_beginning_replays_everything_and_changes_no_row(setup: Setup) -> None:
    """Laws 1 and 3: every record is decided again. No timestamp and no position changes."""
    await setup.publish(make_load(Load(600, 50, seed=2, bad=0.05)))
    async with running(setup.settings) as service:
        end = await applying.caught_up(setup.settings, setup.engine)
        counters = await applying.metrics(service)
    before = await everything(setup.engine), await read(setup.engine, POSITIONS)
    await topics.reset(*setup.group, dict.fromkeys(end, 0))
    async with running(setup.settings) as service:
        await applying.caught_up(setup.settings, setup.engine)
        assert (await everything(setup.engine), await read(setup.engine, POSITIONS)) == before
        counted = applying.since(counters, await applying.metrics(service))
    again = sum(value for (name, _), value in counted.items() if name == "levelsync_events_total")
    assert again == 600


async def test_every_compression_codec_can_be_read(setup: Setup) -> None:
    async with running(setup.settings):
        for codec in ("gzip", "snappy", "lz4", "zstd"):
            slots = by_slot(make_load(Load(80, 50, seed=len(codec), bad=0.1), codec))
            for slot, meant in slots.items():
                setup.slots.setdefault(slot, []).extend(meant)
                records = [as_sent(one, slot[1]) for one in meant]
                await publish(setup.settings.kafka_bootstrap_servers, records, compression_type=codec)
        await setup.assert_ended()


async def test_no_batch_waits_for_the_garbage_collector(setup: Setup) -> None:
    """FastStream's messages are in reference cycles, which kept ten batches in memory until the collector ran."""
    async with running(setup.settings.model_copy(update={"batch_max_records": 50})):
        await applying.caught_up(setup.settings, setup.engine)
        gc.collect()
        gc.disable()
        try:
            await setup.publish(make_load(Load(2000, 100, seed=15), "a"))
            await applying.caught_up(setup.settings, setup.engine)
            alive = [one for one in gc.get_objects() if type(one) is Batch and one.records]
        finally:
            gc.enable()
    assert len(alive) <= 8  # one for each consumer


async def test_only_committed_records_apply_and_markers_are_no_lag(database: AsyncEngine, settings: Settings) -> None:
    """Law 3: one partition contains only aborted records."""
    slots = by_slot(make_load(Load(400, 50, seed=3, bad=0.05)))
    model = Model(MAXIMUM, set(range(1, 201)))
    async with applying.transactional(settings) as producer, running(settings):
        for number, (slot, meant) in enumerate(sorted(slots.items())):
            half = len(meant) // 2
            for part, commit in ((meant[:half], number % 2 == 1), (meant[half:], number % 2 == 0)):
                commit = commit and slot != ONLY_ABORTED  # noqa: PLW2901 - one exception
                await transact(producer, slot, part, commit=commit)
                for one in part if commit else ():
                    model.apply(one)
        end = await applying.caught_up(settings, database)
    assert end[TopicPartition(*ONLY_ABORTED)] == len(slots[ONLY_ABORTED]) + 2  # markers are offsets, too
    await assert_equal_to(model, database)


async def transact(producer: AIOKafkaProducer, slot: Slot, meant: Sequence[Meant], *, commit: bool) -> None:
    """Publish records to one partition in one transaction."""
    await producer.begin_transaction()
    for one in meant:
        await (await send(producer, as_sent(one, slot[1])))
    await (producer.commit_transaction if commit else producer.abort_transaction)()
