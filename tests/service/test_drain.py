"""SIGTERM under load: the batch in hand is finished, and the group knows at once that its member has left."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.support import applying, topics
from tests.support.load import Load, make_load
from tests.support.process import LevelsyncProcess
from tests.support.published import Scene

SESSION_TIMEOUT = 10.0
"""Seconds after which a group gives up a member that did not say goodbye."""


@pytest.mark.real_broker
async def test_a_terminated_process_drains_commits_and_leaves_its_group(
    scene: Scene, levelsync_process: Callable[..., LevelsyncProcess]
) -> None:
    """Exit code 0 within ten seconds, commits equal to the position rows, and the next start waits for nobody."""
    settings = scene.settings.model_copy(update={"batch_max_records": 20})
    process = levelsync_process(settings, ("serve", "--roles", "apply"))
    await scene.publish(make_load(Load(8000, 200, seed=15)))
    await process.start()
    await scene.wait_applied(500)
    began = time.monotonic()
    assert await process.terminate() == 0
    assert time.monotonic() - began < 10
    assert await topics.members(settings.kafka_bootstrap_servers, settings.kafka_group_id) == []
    applied = await applying.applied(scene.engine)
    assert await applying.committed(settings) == applied
    assert sum(applied.values()) < scene.published, "it was not under load: this test shows nothing"
    await scene.assert_consistent()
    began = time.monotonic()
    await process.start()
    await scene.wait_applied(sum(applied.values()) + 1)
    assert time.monotonic() - began < SESSION_TIMEOUT
    await scene.assert_ended()
    assert await process.terminate() == 0
