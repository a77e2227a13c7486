"""`kill -9` of `levelsync serve` at any moment: nothing is lost, nothing happens twice (law 3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import pytest

from service.settings import Settings
from tests.support.killing import bury, feed, start_and_kill
from tests.support.load import Load, make_load, new_seed
from tests.support.model import LEVELED_UP
from tests.support.process import LevelsyncProcess
from tests.support.published import Scene

pytestmark = [pytest.mark.real_broker, pytest.mark.usefixtures("topics")]
Make = Callable[..., LevelsyncProcess]


@pytest.mark.soak
async def test_four_kills_under_load_lose_nothing_and_repeat_nothing(
    settings: Settings, levelsync_process: Make
) -> None:
    """Small batches, so that every kill meets one somewhere between its first statement and Kafka's commit."""
    seed = new_seed()
    rng, load = Random(seed), make_load(Load(24_000, 3_000, seed, bad=0.02))  # noqa: S311 - no secret
    settings = settings.model_copy(update={"batch_max_records": 50})
    process = levelsync_process(settings)
    async with Scene(settings, users=3_000) as scene:
        await scene.publish(load[:16_000])
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(feed(scene, load[16_000:]))
            for _ in range(4):
                await start_and_kill(process, scene, rng, share=0.25)
                await bury(scene)
        await process.start()
        await scene.assert_ended()
    assert await process.terminate() == 0


async def test_a_kill_in_the_middle_of_a_drain_ends_in_the_models_tables(
    settings: Settings, levelsync_process: Make
) -> None:
    """All settings as they come, nobody helps the group: it waits for the dead member, and goes on."""
    seed = new_seed()
    process = levelsync_process(settings)
    async with Scene(settings, users=4_000) as scene:
        await scene.publish(make_load(Load(24_000, 4_000, seed, kinds=(LEVELED_UP,))))
        await start_and_kill(process, scene, Random(seed), share=0.5)  # noqa: S311 - no secret
        assert await scene.applied() < scene.published
        await process.start(ready=False)
        await scene.assert_ended()
    assert await process.terminate() == 0
