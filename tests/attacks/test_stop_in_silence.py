"""SIGTERM while PostgreSQL says nothing: the process leaves in time all the same (interface, `serve`)."""

from __future__ import annotations

import time
from collections.abc import Callable

from pydantic import SecretStr

from tests.support.links import way_to
from tests.support.load import Load, make_load
from tests.support.process import LevelsyncProcess
from tests.support.published import Scene


async def test_a_process_whose_batch_hangs_in_a_silent_database_leaves_within_ten_seconds(
    scene: Scene, levelsync_process: Callable[..., LevelsyncProcess]
) -> None:
    """No packet comes back, so every connection hangs: also those that are to be closed."""
    async with way_to(scene.settings.database_url.get_secret_value()) as (way, url):
        settings = scene.settings.model_copy(update={"batch_max_records": 20, "database_url": SecretStr(url)})
        process = levelsync_process(settings, ("serve",))
        await process.start()
        await scene.publish(make_load(Load(4000, 200, seed=41)))
        await scene.wait_applied(200)
        way.open.clear()
        assert await scene.applied() < scene.published, "it was not under load: this test shows nothing"
        began = time.monotonic()
        code = await process.terminate(30)
        assert time.monotonic() - began < 10, process.output
        assert code == 0
    await scene.assert_nothing_half_done()
