"""Twenty kills, with one or two processes in the group and batches of any size."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from random import Random

import pytest

from service.settings import Settings
from tests.support import topics
from tests.support.killing import feed
from tests.support.load import Load, make_load, new_seed
from tests.support.process import LevelsyncProcess, Make
from tests.support.published import Setup

pytestmark = [pytest.mark.soak, pytest.mark.real_broker, pytest.mark.usefixtures("topics")]
KILLS, USERS = 20, 10_000
_BATCHES = (10, 50, 500, 5000)


class Victims:
    """The processes of one group, which are started, killed and replaced."""

    def __init__(self, setup: Setup, make: Make, rng: Random) -> None:
        self._setup = setup
        self._make = make
        self._rng = rng
        self._running: list[LevelsyncProcess] = []
        self.killed = 0

    async def fill(self, most: int) -> None:
        """Start processes until one, or up to `most`, run. Half the time, remove the dead members first."""
        if self._rng.random() < 0.5:
            await self._bury()
        for _ in range(len(self._running), self._rng.randint(1, most)):
            batch = {"batch_max_records": self._rng.choice(_BATCHES)}
            process = self._make(self._setup.settings.model_copy(update=batch))
            # Often without a wait for readiness, so that the next kill may come while it joins its group.
            await process.start(ready=self._rng.random() < 0.7)
            self._running.append(process)

    async def kill(self, share: float) -> None:
        """Kill one or all when up to `share` of the rest was applied. When none is left, check law 3."""
        left = self._setup.published - await self._setup.applied()
        await self._setup.wait_applied(self._setup.published - left + self._rng.randint(0, int(left * share)))
        for process in self._some():
            process.kill()
            self._running.remove(process)
            self.killed += 1
        if not self._running:
            await self._setup.assert_nothing_half_done()

    async def stop(self) -> None:
        assert [await process.terminate() for process in self._running] == [0] * len(self._running)

    def _some(self) -> Iterable[LevelsyncProcess]:
        return list(self._running) if self._rng.random() < 0.7 else [self._rng.choice(self._running)]

    async def _bury(self) -> None:
        if self.killed and not self._running:  # a living member would be removed from its group
            await topics.bury(*self._setup.group)


async def test_twenty_kills_lose_nothing_and_repeat_nothing(settings: Settings, levelsync_process: Make) -> None:
    seed = new_seed()
    load = make_load(Load(150_000, USERS, seed, bad=0.01))
    async with Setup(settings, USERS) as setup, asyncio.TaskGroup() as tasks:
        await setup.publish(load[:100_000])
        tasks.create_task(feed(setup, load[100_000:]))
        victims = Victims(setup, levelsync_process, Random(seed))  # noqa: S311 - no secret
        while victims.killed < KILLS:
            await victims.fill(most=2)
            await victims.kill(share=0.08)
            print(f"{victims.killed} killed at {await setup.applied()} of {setup.published}")  # noqa: T201 - for whoever reads a failure
        await victims.fill(most=2)
        await setup.assert_ended(120)
        await victims.stop()
