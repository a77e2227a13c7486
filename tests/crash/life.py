"""A service's life in random episodes: work, an end, what an operator does meanwhile, and a new beginning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from random import Random
from urllib.parse import urlsplit

from pydantic import SecretStr

from service.settings import Settings
from tests.crash.killing import bury, start_and_kill
from tests.infrastructure import groups
from tests.infrastructure.levelsync_process import LevelsyncProcess
from tests.infrastructure.servers import Postgres
from tests.laws.load import Load, make_load
from tests.laws.scene import Scene

ENDS = ("killed", "stopped")
MEANWHILE = ("nothing", "rewound a little", "rewound to the beginning", "database restored")
_BATCHES = (20, 100, 5000)


class Life:
    """Runs episodes, and compares with the model whenever nobody writes. Everything random comes from `rng`."""

    def __init__(
        self, scene: Scene, postgres: Postgres, make_process: Callable[[Settings], LevelsyncProcess], rng: Random
    ) -> None:
        self._scene = scene
        self._postgres = postgres
        self._make_process = make_process
        self._rng = rng
        self._backup: str | None = None
        self._loads = 0

    async def run(self, rounds: int, records: int) -> None:
        """Each kind of end with each thing that may happen meanwhile, `rounds` times, in any order."""
        for end, meanwhile in self._episodes(rounds):
            print(f"{end} at {await self._scene.applied()} of {self._scene.published}, {meanwhile}")  # noqa: T201 - for whoever reads a failure
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
        load = Load(self._rng.randint(1, records), self._scene.users, self._rng.getrandbits(32), bad=0.02)
        await self._scene.publish(make_load(load, f"load{self._loads}-"))

    async def _work_until(self, end: str) -> None:
        process = self._process()
        if end == "killed":
            await start_and_kill(process, self._scene, self._rng, share=0.9)
            await bury(self._scene)
            return
        await process.start()
        if self._rng.random() < 0.5:
            await self._scene.assert_ended()
        assert await process.terminate() == 0
        await self._scene.assert_nothing_half_done()
        assert await groups.members(*self._group) == [], "a member did not leave its group"

    async def _until_quiet(self) -> None:
        process = self._process()
        await process.start()
        await self._scene.assert_ended()
        assert await process.terminate() == 0

    def _process(self) -> LevelsyncProcess:
        batch = {"batch_max_records": self._rng.choice(_BATCHES)}
        return self._make_process(self._scene.settings.model_copy(update=batch))

    async def _meanwhile(self, what: str) -> None:
        if what == "database restored":
            await self._restore()
        elif what != "nothing":
            await self._rewind(to_the_beginning=what == "rewound to the beginning")

    async def _rewind(self, *, to_the_beginning: bool) -> None:
        """An operator resets the group, all of it or some partitions."""
        offsets = await groups.committed(*self._group)
        if not offsets:  # it was stopped before its first commit
            return
        if not to_the_beginning:
            some = self._rng.sample(sorted(offsets), self._rng.randint(1, len(offsets)))
            offsets = {tp: self._rng.randint(0, offsets[tp]) for tp in some}
        await groups.reset(*self._group, {tp: 0 if to_the_beginning else at for tp, at in offsets.items()})

    async def _restore(self) -> None:
        """The database goes back to the last backup, if there is one; then a new one is made."""
        if self._backup is not None:
            await self._move_to(self._backup)
            self._scene.went_back = True
            await self._scene.assert_consistent()
        await self._scene.engine.dispose()  # a database that is copied has no connections
        self._backup = await self._postgres.create_database(urlsplit(self._url).path.lstrip("/"))

    async def _move_to(self, url: str) -> None:
        before = self._url
        await self._scene.move_to(self._scene.settings.model_copy(update={"database_url": SecretStr(url)}))
        await self._postgres.drop_database(before)

    async def end(self) -> None:
        """Remove the databases that it made."""
        for url in filter(None, (self._backup, self._url)):
            await self._postgres.drop_database(url)

    @property
    def _url(self) -> str:
        return self._scene.settings.database_url.get_secret_value()

    @property
    def _group(self) -> tuple[str, str]:
        return self._scene.settings.kafka_bootstrap_servers, self._scene.settings.kafka_group_id
