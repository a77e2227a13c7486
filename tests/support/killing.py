"""A service under `kill -9`, restores and outages at random moments."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from random import Random
from urllib.parse import urlsplit

from pydantic import SecretStr

from service.settings import Settings
from tests.support import topics
from tests.support.load import Load, make_load
from tests.support.model import Meant
from tests.support.process import LevelsyncProcess
from tests.support.published import Setup
from tests.support.servers import Postgres, Restartable
from tests.support.waiting import eventually

_CHUNK = 500


async def feed(setup: Setup, meant: list[Meant]) -> None:
    """Publish in small pieces, so that records arrive while others are applied."""
    for begin in range(0, len(meant), _CHUNK):
        await setup.publish(meant[begin : begin + _CHUNK])


async def start_and_kill(process: LevelsyncProcess, setup: Setup, rng: Random, share: float) -> None:
    """Start a process, `kill -9` it when up to `share` of the rest was applied, and check law 3."""
    before = await setup.applied()
    left = setup.published - before
    at = before + rng.randint(min(1, left), max(min(1, left), int(left * share)))
    await process.start(ready=False)
    await setup.wait_applied(at)
    process.kill()
    await setup.assert_nothing_half_done()
    print(f"killed at {await setup.applied()} of {setup.published}")  # noqa: T201 - for whoever reads a failure


ENDS = ("killed", "stopped")
MEANWHILE = ("nothing", "rewound a little", "rewound to the beginning", "database restored")
_BATCHES = (20, 100, 5000)


class Life:
    """Runs episodes, and compares the tables with the model whenever no process writes. `rng` makes every choice."""

    def __init__(
        self, setup: Setup, postgres: Postgres, make_process: Callable[[Settings], LevelsyncProcess], rng: Random
    ) -> None:
        self._setup = setup
        self._postgres = postgres
        self._make_process = make_process
        self._rng = rng
        self._backup: str | None = None
        self._loads = 0

    async def run(self, rounds: int, records: int) -> None:
        """Run each kind of end with each kind of event between two lives, `rounds` times, in any order."""
        for end, meanwhile in self._episodes(rounds):
            print(f"{end} at {await self._setup.applied()} of {self._setup.published}, {meanwhile}")  # noqa: T201 - for whoever reads a failure
            await self._publish(records)
            await self._work_until(end)
            await self._meanwhile(meanwhile)
            if self._rng.random() < 0.5:
                await self._publish(records // 2)
        await self._until_quiet()

    def _episodes(self, rounds: int) -> Iterator[tuple[str, str]]:
        for _ in range(rounds):
            yield from self._rng.sample(every := list(product(ENDS, MEANWHILE)), len(every))

    async def _publish(self, records: int) -> None:
        self._loads += 1
        load = Load(self._rng.randint(1, records), self._setup.users, self._rng.getrandbits(32), bad=0.02)
        await self._setup.publish(make_load(load, f"load{self._loads}-"))

    async def _work_until(self, end: str) -> None:
        process = self._process()
        if end == "killed":
            await start_and_kill(process, self._setup, self._rng, share=0.9)
            await topics.bury(*self._setup.group)
            return
        await process.start()
        if self._rng.random() < 0.5:
            await self._setup.assert_ended()
        assert await process.terminate() == 0
        await self._setup.assert_nothing_half_done()
        assert await topics.members(*self._setup.group) == [], "a member did not leave its group"

    async def _until_quiet(self) -> None:
        process = self._process()
        await process.start()
        await self._setup.assert_ended()
        assert await process.terminate() == 0

    def _process(self) -> LevelsyncProcess:
        batch = {"batch_max_records": self._rng.choice(_BATCHES)}
        return self._make_process(self._setup.settings.model_copy(update=batch))

    async def _meanwhile(self, what: str) -> None:
        if what == "database restored":
            await self._restore()
        elif what != "nothing":
            await self._rewind(to_the_beginning=what == "rewound to the beginning")

    async def _rewind(self, *, to_the_beginning: bool) -> None:
        """Reset the group as an operator does, all of it or some partitions."""
        offsets = await topics.committed(*self._setup.group)
        if not offsets:  # it was stopped before its first commit
            return
        if not to_the_beginning:
            some = self._rng.sample(sorted(offsets), self._rng.randint(1, len(offsets)))
            offsets = {tp: self._rng.randint(0, offsets[tp]) for tp in some}
        await topics.reset(*self._setup.group, {tp: 0 if to_the_beginning else at for tp, at in offsets.items()})

    async def _restore(self) -> None:
        """Restore the last backup, if there is one, and make a new one."""
        if self._backup is not None:
            await self._move_to(self._backup)
            self._setup.went_back = True
            await self._setup.assert_consistent()
        await self._setup.engine.dispose()  # a database that is copied has no connections
        self._backup = await self._postgres.create_database(urlsplit(self._url).path.lstrip("/"))

    async def _move_to(self, url: str) -> None:
        before = self._url
        await self._setup.move_to(self._setup.settings.model_copy(update={"database_url": SecretStr(url)}))
        await self._postgres.drop_database(before)

    async def end(self) -> None:
        """Remove the databases of this life."""
        for url in filter(None, (self._backup, self._url)):
            await self._postgres.drop_database(url)

    @property
    def _url(self) -> str:
        return self._setup.settings.database_url.get_secret_value()


SECONDS = float(os.environ.get("LEVELSYNC_TEST_OUTAGE_SECONDS", "600"))
_LOOK_EVERY = 5.0
_PIECE = 100


@dataclass
class Outage:
    """Kills `server` and starts it after `seconds`.

    It samples the service's memory (bytes), /livez and /readyz every five seconds.
    """

    server: Restartable
    process: LevelsyncProcess
    setup: Setup
    seconds: float = SECONDS
    memory_before: int = 0
    memory: list[int] = field(default_factory=list)
    livez: set[int] = field(default_factory=set)
    readyz: set[int] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    """What /readyz answered with a status of 503."""
    back_after: float = 0.0
    """Seconds from the server's return to the first record applied."""
    ready_after: float = 0.0
    """Seconds from the server's return to a status of 200 of /readyz."""

    async def run(self, warm: list[Meant], in_hand: list[Meant], meanwhile: list[Meant], after: list[Meant]) -> None:
        """Work, lose the server during a batch, and go on when it is back. `meanwhile` is published in pieces."""
        await self.setup.publish(warm)
        await self.process.start()
        await self.setup.assert_ended()
        members = await topics.members(*self.setup.group)
        self.memory_before = self.process.memory_bytes
        await self.setup.publish(in_hand)
        await self.server.kill()
        await self._wait_and_look(meanwhile)
        await self._return(after)
        await self.setup.assert_ended()
        await eventually(lambda: self._has_members(len(members)))

    async def _wait_and_look(self, meanwhile: list[Meant]) -> None:
        end = time.monotonic() + self.seconds
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, _LOOK_EVERY))  # this is the outage, not a wait for a condition
            await self.setup.publish(meanwhile[:_PIECE])
            del meanwhile[:_PIECE]
            self.memory.append(self.process.memory_bytes)
            self.livez.add((await self.process.get("/livez"))[0])
            status, body = await self.process.get("/readyz")
            self.readyz.add(status)
            self.problems += [body] if status == 503 else []

    async def _return(self, after: list[Meant]) -> None:
        await self.server.start()
        began = time.monotonic()
        before = await self.setup.applied()
        await self.setup.publish(after)
        await self.setup.wait_applied(before + 1)
        self.back_after = time.monotonic() - began
        await eventually(self._is_ready)
        self.ready_after = time.monotonic() - began

    async def _has_members(self, count: int) -> bool:
        found = len(await topics.members(*self.setup.group))
        assert found == count, f"{found} members of {count} are in the group"
        return True

    async def _is_ready(self) -> bool:
        status, said = await self.process.get("/readyz")
        assert status == 200, said
        return True

    def __str__(self) -> str:
        """Return the figures, for a run with -s and for a failure."""
        megabytes = [round(one / 1e6, 1) for one in (self.memory_before, max(self.memory), self.memory[-1])]
        figures = {"MB before, most, last": megabytes, "back after s": round(self.back_after, 2)}
        return json.dumps(figures | {"livez": sorted(self.livez), "readyz": sorted(self.readyz)})
