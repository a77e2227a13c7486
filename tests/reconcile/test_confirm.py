"""Law 5: suspects are confirmed in order, and only then reported as drift."""

from __future__ import annotations

from datetime import timedelta

import pytest
from aiokafka import TopicPartition
from sqlalchemy.ext.asyncio import AsyncEngine

from service.reconcile import steps
from service.settings import Settings
from service.stream.positions import set_position
from tests.support.runs import OneWorker, found_issues, until_step
from tests.support.tables import execute, fill, read

PAIR = (1, "PLAYER")
NINE = {"progress.leveled-up-0": 9}


@pytest.fixture(autouse=True)
async def _one_pair_differs(engine: AsyncEngine) -> None:
    await fill(engine, {PAIR: 4}, {PAIR: 3})


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "CATCH_UP_SECONDS", 0.3)


async def position(engine: AsyncEngine, offset: int, topic_id: str = "") -> None:
    async with engine.begin() as conn:
        await set_position(conn, TopicPartition("progress.leveled-up", 0), offset, "test", topic_id)


async def test_a_pair_whose_event_comes_in_the_grace_time_is_not_drift(engine: AsyncEngine, settings: Settings) -> None:
    one_worker = OneWorker(engine, settings.model_copy(update={"reconcile_grace": timedelta(milliseconds=300)}))
    run_id = await one_worker.request(direction="highest", dry_run=False)
    await until_step(one_worker, run_id, "grace")
    await execute(engine, "UPDATE user_licenses SET current_level = 4")
    counts = (await one_worker.finish(run_id))["counts"]
    assert (counts["changed_meanwhile"], counts["mismatched"], counts["healed"]) == (1, 0, 0)


async def test_the_end_offsets_are_taken_after_the_grace_time(engine: AsyncEngine, one_worker: OneWorker) -> None:
    """A record from the grace time must be applied before the confirmation."""
    one_worker.topics.ends = {"progress.leveled-up-0": 0}
    run_id = await one_worker.request()
    await until_step(one_worker, run_id, "grace")
    one_worker.topics.ends = NINE
    await until_step(one_worker, run_id, "catch_up")
    await one_worker.step()
    assert (await one_worker.report(run_id))["finished_at"] is None
    await position(engine, 9)
    assert (await one_worker.finish(run_id))["counts"]["mismatched"] == 1


@pytest.mark.usefixtures("impatient")
async def test_appliers_that_stay_behind_leave_all_unconfirmed(engine: AsyncEngine, one_worker: OneWorker) -> None:
    """An unconfirmed pair is counted separately and never healed. The drift that an earlier scan confirmed stays."""
    await one_worker.run()
    one_worker.topics.ends = NINE
    report = await one_worker.run(direction="highest", dry_run=False)
    counts = report["counts"]
    assert (report["status"], counts["unconfirmed"], counts["mismatched"], counts["healed"]) == ("completed", 1, 0, 0)
    assert await read(engine, "SELECT count(*) FROM levelsync.drift") == [(1,)]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("offset", "topic_id"), [(1000, ""), (9, "deleted")], ids=["beyond the end", "at the end by chance"]
)
async def test_a_position_of_a_deleted_topic_does_not_count(
    engine: AsyncEngine, one_worker: OneWorker, offset: int, topic_id: str
) -> None:
    """The topic was created again, so its row counts only after the consumer's restart."""
    await position(engine, offset, topic_id)
    one_worker.topics.ends = NINE
    one_worker.topics.topic_ids = {"progress.leveled-up": "new"} if topic_id else {}
    assert (await one_worker.run())["counts"]["unconfirmed"] == 1


async def test_a_topic_created_again_gives_a_waiting_run_a_new_goal(engine: AsyncEngine, one_worker: OneWorker) -> None:
    """The records of the old topic are gone, and those of the new one are not applied yet."""
    topics = one_worker.topics
    topics.ends, topics.topic_ids = NINE, {"progress.leveled-up": "old"}
    run_id = await one_worker.request()
    await until_step(one_worker, run_id, "settle")
    topics.ends, topics.topic_ids = {"progress.leveled-up-0": 2}, {"progress.leveled-up": "new"}
    await position(engine, 2, "new")
    assert (await one_worker.finish(run_id))["counts"]["mismatched"] == 1


async def test_an_emptied_partition_is_caught_up(engine: AsyncEngine, one_worker: OneWorker) -> None:
    one_worker.topics.ends = one_worker.topics.starts = NINE
    assert (await one_worker.run())["counts"]["mismatched"] == 1
    assert await found_issues(engine) == {PAIR: "mismatched"}
