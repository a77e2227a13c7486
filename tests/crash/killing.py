"""Killing `levelsync serve` at random moments while it works."""

from __future__ import annotations

from random import Random

from tests.infrastructure import groups
from tests.infrastructure.levelsync_process import LevelsyncProcess
from tests.laws.model import Meant
from tests.laws.scene import Scene

_CHUNK = 500


async def feed(scene: Scene, meant: list[Meant]) -> None:
    """Publish in small pieces, so that records come in while others are applied."""
    for begin in range(0, len(meant), _CHUNK):
        await scene.publish(meant[begin : begin + _CHUNK])


async def start_and_kill(process: LevelsyncProcess, scene: Scene, rng: Random, share: float) -> None:
    """Start it, `kill -9` it when up to `share` of what is left was applied, and hold what is there to law 3."""
    before = await scene.applied()
    left = scene.published - before
    at = before + rng.randint(min(1, left), max(min(1, left), int(left * share)))
    await process.start(ready=False)
    await scene.wait_applied(at)
    process.kill()
    await scene.assert_nothing_half_done()
    print(f"killed at {await scene.applied()} of {scene.published}")  # noqa: T201 - for whoever reads a failure


async def bury(scene: Scene) -> None:
    """Let the groups forget the members that were killed."""
    await groups.bury(scene.settings.kafka_bootstrap_servers, scene.settings.kafka_group_id)
