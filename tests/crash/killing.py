"""Killing `levelsync serve` at random moments while it works."""

from __future__ import annotations

from random import Random

from tests.infrastructure.groups import bury
from tests.infrastructure.levelsync_process import LevelsyncProcess
from tests.laws.model import Meant
from tests.laws.scene import Scene

_CHUNK = 500


async def feed(scene: Scene, meant: list[Meant]) -> None:
    """Publish in small pieces, so that records come in while others are applied."""
    for begin in range(0, len(meant), _CHUNK):
        await scene.publish(meant[begin : begin + _CHUNK])


async def kill_at_work(process: LevelsyncProcess, scene: Scene, rng: Random, share: float) -> None:
    """`kill -9` when up to `share` of what is left was applied; then hold what is there to law 3."""
    before = await scene.applied()
    await scene.wait_applied(before + rng.randint(1, max(1, int((scene.published - before) * share))))
    process.kill()
    await scene.assert_nothing_half_done()
    print(f"killed at {await scene.applied()} of {scene.published}")  # noqa: T201 - for whoever reads a failure


async def start_again(process: LevelsyncProcess, scene: Scene) -> None:
    """Start it once the group has forgotten the member that was killed."""
    await bury(scene.settings.kafka_bootstrap_servers, scene.settings.kafka_group_id)
    await process.start()
