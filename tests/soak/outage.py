"""One server goes away for minutes under a service that works: what the service does meanwhile, and afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import dataclass, field

from tests.infrastructure import groups
from tests.infrastructure.levelsync_process import LevelsyncProcess
from tests.infrastructure.servers import Restartable
from tests.infrastructure.waiting import eventually
from tests.laws.model import Meant
from tests.laws.scene import Scene

SECONDS = float(os.environ.get("LEVELSYNC_TEST_OUTAGE_SECONDS", "600"))
_LOOK_EVERY = 5.0
_PIECE = 100


@dataclass
class Outage:
    """Lets `server` go away for SECONDS.

    Samples of the service's memory (bytes) and of /livez and /readyz are taken every five seconds.
    """

    server: Restartable
    process: LevelsyncProcess
    scene: Scene
    memory_before: int = 0
    memory: list[int] = field(default_factory=list)
    livez: set[int] = field(default_factory=set)
    readyz: set[int] = field(default_factory=set)
    back_after: float = 0.0
    """Seconds from the server's return to the first record applied."""

    async def run(self, warm: list[Meant], in_hand: list[Meant], meanwhile: list[Meant], after: list[Meant]) -> None:
        """Work, lose the server with work in hand, and go on when it is back; `meanwhile` is published bit by bit."""
        await self.scene.publish(warm)
        await self.process.start()
        await self.scene.assert_ended()
        members = await groups.members(*self._group)
        self.memory_before = self.process.memory_bytes
        await self.scene.publish(in_hand)
        await self.server.kill()
        await self._wait_and_look(meanwhile)
        await self._return(after)
        await self.scene.assert_ended()
        await eventually(lambda: self._has_members(len(members)))
        await eventually(self._is_ready)

    async def _wait_and_look(self, meanwhile: list[Meant]) -> None:
        end = time.monotonic() + SECONDS
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, _LOOK_EVERY))  # not to wait for anything: this is the outage
            await self.scene.publish(meanwhile[:_PIECE])
            del meanwhile[:_PIECE]
            self.memory.append(self.process.memory_bytes)
            self.livez.add((await self.process.get("/livez"))[0])
            self.readyz.add((await self.process.get("/readyz"))[0])

    async def _return(self, after: list[Meant]) -> None:
        await self.server.start()
        began = time.monotonic()
        before = await self.scene.applied()
        await self.scene.publish(after)
        await self.scene.wait_applied(before + 1)
        self.back_after = time.monotonic() - began

    async def _has_members(self, count: int) -> bool:
        found = len(await groups.members(*self._group))
        assert found == count, f"{found} members of {count} are in the group"
        return True

    async def _is_ready(self) -> bool:
        status, said = await self.process.get("/readyz")
        assert status == 200, said
        return True

    @property
    def _group(self) -> tuple[str, str]:
        return self.scene.settings.kafka_bootstrap_servers, self.scene.settings.kafka_group_id

    def __str__(self) -> str:
        """The figures, for whoever runs the test with -s or reads a failure."""
        megabytes = [round(one / 1e6, 1) for one in (self.memory_before, max(self.memory), self.memory[-1])]
        figures = {"MB before, most, last": megabytes, "back after s": round(self.back_after, 2)}
        return json.dumps(figures | {"livez": sorted(self.livez), "readyz": sorted(self.readyz)})
