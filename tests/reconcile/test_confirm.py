"""Law 5: suspects are confirmed in order, and only then reported as drift."""

from __future__ import annotations

from datetime import timedelta

import pytest
from aiokafka import TopicPartition
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.reconcile import steps
from service.settings import Settings
from service.stream.positions import set_position
from tests.support.runs import NoTopics, OneWorker, found_issues, until_step
from tests.support.tables import fill

PAIR = (1, "PLAYER")


@pytest.fixture
def at_once(settings: Settings) -> Settings:
    return settings.model_copy(update={"reconcile_grace": timedelta(0)})


async def test_a_pair_whose_event_comes_in_the_grace_time_is_no_drift(engine: AsyncEngine, settings: Settings) -> None:
    """Its levels moved between scan and confirmation."""
    await fill(engine, {PAIR: 4}, {PAIR: 3})
    one_worker = OneWorker(engine, settings.model_copy(update={"reconcile_grace": timedelta(milliseconds=300)}))
    run_id = await one_worker.request(direction="highest", dry_run=False)
    await until_step(one_worker, run_id, "grace")
    async with engine.begin() as conn:
        await conn.execute(text("UPDATE user_licenses SET current_level = 4"))
    report = await one_worker.finish(run_id)
    assert report["counts"]["changed_meanwhile"] == 1
    assert report["counts"]["mismatched"] == report["counts"]["healed"] == 0


async def test_the_end_offsets_are_taken_after_the_grace_time(engine: AsyncEngine, at_once: Settings) -> None:
    """A record from the grace time must be applied before the confirmation."""
    await fill(engine, {PAIR: 4}, {PAIR: 3})
    topics = NoTopics({"progress.leveled-up-0": 0})
    one_worker = OneWorker(engine, at_once, topics)
    run_id = await one_worker.request()
    await until_step(one_worker, run_id, "grace")
    topics.ends = {"progress.leveled-up-0": 7}
    await until_step(one_worker, run_id, "catch_up")
    await one_worker.step()
    assert (await one_worker.report(run_id))["finished_at"] is None
    async with engine.begin() as conn:
        await set_position(conn, TopicPartition("progress.leveled-up", 0), 7, "test")
    assert (await one_worker.finish(run_id))["counts"]["mismatched"] == 1


async def test_appliers_that_do_not_catch_up_leave_everything_unconfirmed(
    engine: AsyncEngine, at_once: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are counted separately and never healed."""
    monkeypatch.setattr(steps, "PATIENCE_SECONDS", 0.3)
    await fill(engine, {PAIR: 4}, {PAIR: 3})
    one_worker = OneWorker(engine, at_once, NoTopics({"progress.leveled-up-0": 9}))
    report = await one_worker.run(direction="highest", dry_run=False)
    assert report["counts"]["unconfirmed"] == 1
    assert report["counts"]["mismatched"] == report["counts"]["healed"] == 0
    assert report["status"] == "completed"


async def test_a_scan_that_could_confirm_nothing_is_no_all_clear(
    engine: AsyncEngine, at_once: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drift of the scan before it stays in the view."""
    await fill(engine, {PAIR: 4}, {PAIR: 3})
    await OneWorker(engine, at_once).run()
    monkeypatch.setattr(steps, "PATIENCE_SECONDS", 0.3)
    await OneWorker(engine, at_once, NoTopics({"progress.leveled-up-0": 9})).run()
    async with engine.connect() as conn:
        assert (await conn.execute(text("SELECT count(*) FROM levelsync.drift"))).scalar_one() == 1


async def test_a_position_beyond_the_end_of_a_new_topic_is_not_caught_up(
    engine: AsyncEngine, at_once: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The topic was created again, so its row counts only after the consumer's restart."""
    monkeypatch.setattr(steps, "PATIENCE_SECONDS", 0.3)
    await fill(engine, {PAIR: 4}, {PAIR: 3})
    async with engine.begin() as conn:
        await set_position(conn, TopicPartition("progress.leveled-up", 0), 1000, "test")
    report = await OneWorker(engine, at_once, NoTopics({"progress.leveled-up-0": 9})).run()
    assert report["counts"]["unconfirmed"] == 1


async def test_a_position_of_another_topic_of_the_same_name_says_nothing(
    engine: AsyncEngine, at_once: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row's offset equals the end of the new topic by chance."""
    monkeypatch.setattr(steps, "PATIENCE_SECONDS", 0.3)
    await fill(engine, {PAIR: 4}, {PAIR: 3})
    async with engine.begin() as conn:
        await set_position(conn, TopicPartition("progress.leveled-up", 0), 9, "test", "deleted")
    topics = NoTopics({"progress.leveled-up-0": 9}, topic_ids={"progress.leveled-up": "new"})
    assert (await OneWorker(engine, at_once, topics).run())["counts"]["unconfirmed"] == 1


async def test_a_topic_created_again_while_a_run_waits_gives_it_a_new_goal(
    engine: AsyncEngine, at_once: Settings
) -> None:
    """The records of the old topic are gone, and those of the new one are not applied yet."""
    await fill(engine, {PAIR: 4}, {PAIR: 3})
    topics = NoTopics({"progress.leveled-up-0": 9}, topic_ids={"progress.leveled-up": "old"})
    one_worker = OneWorker(engine, at_once, topics)
    run_id = await one_worker.request()
    await until_step(one_worker, run_id, "settle")
    topics.ends, topics.topic_ids = {"progress.leveled-up-0": 2}, {"progress.leveled-up": "new"}
    async with engine.begin() as conn:
        await set_position(conn, TopicPartition("progress.leveled-up", 0), 2, "test", "new")
    assert (await one_worker.finish(run_id))["counts"]["mismatched"] == 1


async def test_an_emptied_partition_is_caught_up(engine: AsyncEngine, at_once: Settings) -> None:
    """Its log start equals its end."""
    await fill(engine, {PAIR: 4}, {PAIR: 3})
    topics = NoTopics({"progress.leveled-up-0": 9}, {"progress.leveled-up-0": 9})
    report = await OneWorker(engine, at_once, topics).run()
    assert report["counts"]["mismatched"] == 1
    assert await found_issues(engine) == {PAIR: "mismatched"}
