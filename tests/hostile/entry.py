"""How the tests of this folder enter the service: the only module here that knows what is inside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from events import Direction
from service.database.faults import Fault, read_fault
from service.settings import Settings
from service.sync import ProgressLicenseSyncService
from service.sync.results import SyncResult
from tests.laws.model import LEVELED_UP, Meant
from tests.laws.partitions import Partitions
from tests.laws.records import START
from tests.reconcile.conductor import Conductor

_ATTEMPTS = 3


class NotApplied(Exception):  # noqa: N818 - a fact about a batch, not an error of the test
    """Every attempt to apply a batch failed; `fault` is what the service says about the last failure."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"{fault.kind.name}: {fault.message}")
        self.fault = fault


def rise(
    user: int, to_level: int, specialization: str = "PLAYER", kind: str = LEVELED_UP, at: datetime = START
) -> Meant:
    """One event; its id is unique for the pair, kind and level."""
    return Meant(kind, user, specialization, to_level, at, "/test", f"{kind}-{user}-{specialization}-{to_level}")


class Events:
    """Applies batches of events as a consumer does: a failed batch is tried again, a few times."""

    def __init__(self, engine: AsyncEngine, through: AsyncEngine | None = None) -> None:
        """`through`: what batches are applied with, where it is not `engine`."""
        self._engine = engine
        self._partitions = Partitions(through or engine)

    async def begin(self) -> Events:
        """Create the position rows."""
        begun = await Partitions(self._engine).begin()
        self._partitions.rows = begun.rows
        return self

    async def apply(self, *meant: Meant, attempts: int = _ATTEMPTS) -> None:
        """Apply events, all of one kind, as one batch of one partition.

        Raises:
            NotApplied: every attempt failed. A consumer would try for ever.
        """
        records = self._partitions.records(meant)
        for left in reversed(range(attempts)):
            try:
                await self._partitions.apply(meant[0].kind, records)
            except Exception as error:
                if not left:
                    raise NotApplied(read_fault(error)) from error
            else:
                return


async def sync(engine: AsyncEngine, user: int, direction: Direction, specialization: str = "PLAYER") -> SyncResult:
    """`levelsync sync USER --specialization X --direction D`."""
    return await ProgressLicenseSyncService(engine).sync_pair(user, specialization, direction)


async def heal(engine: AsyncEngine, settings: Settings, timeout: float = 20, **request: Any) -> dict[str, Any]:  # noqa: ASYNC109 - a test's own bound
    """`levelsync reconcile --execute --force`, without a grace time; returns the report.

    Raises:
        AssertionError: the run has not ended within `timeout` seconds.
    """
    conductor = Conductor(engine, settings.model_copy(update={"reconcile_grace": timedelta(0)}))
    return await conductor.finish(await conductor.request(dry_run=False, force=True, **request), timeout)


def again(meant: Sequence[Meant]) -> list[Meant]:
    """The same events with other ids, as a publisher that repeats itself sends them."""
    return [replace(one, id=f"{one.id}-again") for one in meant]
