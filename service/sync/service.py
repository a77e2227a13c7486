"""`ProgressLicenseSyncService`, which syncs pairs, each in its own transaction, with retries."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import get_args

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from events import Direction
from events.base import INT8_MAX
from service.apply.rows import Author, tables_of
from service.apply.write import Decide, sync_pairs
from service.core.outcomes import Pair
from service.core.pair import Sides, Why, decide_one, nothing
from service.faults import DecideAgain, Kind, NotAsDecided, read_fault
from service.levels import Curriculum, maxima_options, read_curriculum
from service.settings import Settings, load_settings
from service.stream.background import retry
from service.sync import results
from service.sync.bulk import BulkSyncResult, sync_all
from service.sync.issues import DesyncIssue, stream_issues
from service.sync.level import (
    LICENSES_OF_PAIR,
    USER_EXISTS,
    UnknownDirection,
    UnknownSpecialization,
    UnknownUser,
    decide_level,
)
from service.sync.results import SyncResult, UserSyncResult
from service.telemetry import metrics

log = structlog.get_logger(__name__)
_ATTEMPTS = 20
"""Maximum number of attempts. The caller waits, so a conflict that lasts longer is returned as a refusal."""
_WAITS = (0.01, 0.5)
"""Shortest and longest bound of a wait in seconds. They are small because other writers' transactions are short."""
_CAUSE_LENGTH = 500
InTransaction = Callable[[AsyncConnection, SyncResult], Awaitable[None]]
"""A function of the caller that writes in the transaction of the sync, for example into the audit log."""
_ROLLED_BACK = "40"
"""The SQLSTATE class of deadlocks and serialization failures. A retry may succeed."""


class ProgressLicenseSyncService:
    """Brings `specialization_progress` and `user_licenses` into agreement, one pair at a time.

    Names of specializations may be in any case. Every method raises `UnknownSpecialization`, `UnknownUser` or
    `UnknownDirection` for an argument that does not exist, and SQLAlchemy's errors when the database cannot be reached.
    Calls may run concurrently, on the same pairs and in opposite directions. Each pair ends in agreement.
    Without `settings`, the settings are read from the environment.
    """

    def __init__(self, engine: AsyncEngine, settings: Settings | None = None) -> None:
        used = settings or load_settings()
        # The service's engine has the option for the maxima. An engine that the application created does not.
        self._engine = engine.execution_options(**maxima_options(used) | engine.get_execution_options())
        self._tables = tables_of(used)

    async def sync_progress_to_license(
        self, user_id: int, specialization: str, synced_by: int | str | None = None
    ) -> SyncResult:
        """Set the license to the level of the progress, also to a lower one. Create a missing license."""
        return await self.sync_pair(user_id, specialization, "progress_to_license", synced_by)

    async def sync_license_to_progress(
        self, user_id: int, specialization: str, synced_by: int | str | None = None
    ) -> SyncResult:
        """Set the progress to the level of the license, also to a lower one. Create missing progress."""
        return await self.sync_pair(user_id, specialization, "license_to_progress", synced_by)

    async def sync_pair(
        self,
        user_id: int,
        specialization: str,
        direction: Direction,
        synced_by: int | str | None = None,
        *,
        also: InTransaction | None = None,
    ) -> SyncResult:
        """Sync one pair in any direction. If the row to believe does not exist, write nothing.

        `synced_by` is the id of a user, or the name of another caller.
        """
        _check_id(user_id)
        _check_direction(direction)
        pair = await self._pair(user_id, specialization)
        author = _author(f"sync {direction}", synced_by)

        async def sync(conn: AsyncConnection) -> SyncResult:
            done = await sync_pairs(
                conn,
                [pair],
                direction,
                cause=author.cause,
                advanced_by=author.user_id,
                decide=await _decider(conn, pair),
                tables=self._tables,
            )
            await _check_user(conn, user_id, done[pair].before)
            result = results.of_pair(pair, done[pair])
            if also is not None:
                await also(conn, result)
            return result

        return _logged(await self._in_transaction(pair, sync), direction, author)

    async def set_level(
        self,
        user_id: int,
        specialization: str,
        level: int,
        synced_by: int | str | None = None,
        *,
        also: InTransaction | None = None,
    ) -> SyncResult:
        """Set both rows to this level, and create missing rows. Use it for a pair that no direction can repair (law 8).

        Raises:
            LevelOutOfRange: the specialization does not have this level. Nothing was written.
        """
        _check_id(user_id)
        pair = await self._pair(user_id, specialization)
        author = _author("level decided", synced_by)

        async def decide(conn: AsyncConnection) -> SyncResult:
            if not (await conn.execute(USER_EXISTS, {"user": user_id})).scalar_one():
                raise _no_user(user_id)
            result = results.of_level(pair, level, await decide_level(conn, self._tables, pair, level, author))
            if also is not None:
                await also(conn, result)
            return result

        return _logged(await self._in_transaction(pair, decide), "level", author)

    async def sync_user_all_specializations(
        self,
        user_id: int,
        sync_direction: Direction = "progress_to_license",
        synced_by: int | str | None = None,
        *,
        also: InTransaction | None = None,
    ) -> UserSyncResult:
        """Sync every specialization of one user, each in its own transaction."""
        _check_id(user_id)
        _check_direction(sync_direction)
        names = (await self._curriculum()).names
        done = {name: await self.sync_pair(user_id, name, sync_direction, synced_by, also=also) for name in names}
        return UserSyncResult(user_id, sync_direction, done)

    async def find_desync_issues(self, specialization: str | None = None) -> AsyncGenerator[DesyncIssue, None]:
        """Yield every pair that differs now, by user and specialization, also a pair whose event is not applied yet.

        A server-side cursor reads the rows as of one moment. It uses a connection until the iteration ends. PostgreSQL
        closes that connection when nothing is read for a minute. A caller that stops early must close the iterator
        (`contextlib.aclosing`).
        """
        curriculum = await self._curriculum()
        name = None if specialization is None else _canonical(curriculum, specialization)
        async with self._engine.connect() as conn, aclosing(stream_issues(conn, name)) as found:
            async for issue in found:
                yield issue

    async def auto_sync_all(
        self, sync_direction: Direction = "progress_to_license", dry_run: bool = True
    ) -> BulkSyncResult:
        """Sync everything that differs, through a reconcile run. A dry run, which is the default, only reports it.

        This waits for the end of the run. A process with the roles `reconcile` and `relay` has to work on it.
        """
        _check_direction(sync_direction)
        return await sync_all(self._engine, sync_direction, dry_run=dry_run)

    async def _pair(self, user_id: int, specialization: str) -> Pair:
        return user_id, _canonical(await self._curriculum(), specialization)

    async def _curriculum(self) -> Curriculum:
        async with self._engine.connect() as conn:
            return await read_curriculum(conn)

    async def _in_transaction(self, pair: Pair, work: Callable[[AsyncConnection], Awaitable[SyncResult]]) -> SyncResult:
        """Do the work in its own transaction. If the database refuses it, return the refusal as a result."""

        async def attempt() -> SyncResult:
            async with self._engine.begin() as conn:
                return await work(conn)

        try:
            return await retry(attempt, _is_retried, _count, waits=_WAITS, attempts=_ATTEMPTS)
        except (DBAPIError, DecideAgain, NotAsDecided) as error:
            fault = read_fault(error)
            if fault.kind not in {Kind.RECORD, Kind.CONFLICT}:
                raise
            return results.of_refusal(pair, fault.message)


def _is_retried(error: Exception) -> bool:
    fault = read_fault(error)
    return fault.kind is Kind.CONFLICT or fault.sqlstate.startswith(_ROLLED_BACK)


def _count(error: Exception, _attempt: int) -> None:
    metrics.RETRIES.labels(read_fault(error).kind.value).inc()


def _check_id(user_id: int) -> None:
    if abs(user_id) > INT8_MAX:  # PostgreSQL would refuse the value
        raise _no_user(user_id)


def _check_direction(direction: str) -> None:
    if direction not in get_args(Direction):
        raise UnknownDirection(
            f"there is no direction {direction}; the directions are {', '.join(get_args(Direction))}"
        )


def _canonical(curriculum: Curriculum, specialization: str) -> str:
    name = curriculum.canonical(specialization)
    if name is None:
        known = ", ".join(curriculum.names)
        raise UnknownSpecialization(f"there is no specialization {specialization!r}; there are {known}")
    return name


async def _decider(conn: AsyncConnection, pair: Pair) -> Decide:
    """Return how to decide. A pair with several licenses is not changed, because only a person knows which is right."""
    named = {"user": pair[0], "specialization": pair[1]}
    spellings = list((await conn.execute(LICENSES_OF_PAIR, named)).scalars())
    if len(spellings) <= 1:
        return decide_one
    reason = f"there are {len(spellings)} licenses ({', '.join(spellings)}): remove all but one"
    return lambda _sides, _direction, _maximum: nothing(Why.NEEDS_DECISION, reason)


async def _check_user(conn: AsyncConnection, user_id: int, found: Sides) -> None:
    """Raise `UnknownUser` if the user does not exist. A user with a row of the pair exists, so no query is needed."""
    if found.progress_exists or found.license_exists:
        return
    if not (await conn.execute(USER_EXISTS, {"user": user_id})).scalar_one():
        raise _no_user(user_id)


def _no_user(user_id: int) -> UnknownUser:
    return UnknownUser(f"there is no user {user_id}")


def _author(what: str, synced_by: int | str | None) -> Author:
    """Return who decided: in words, and as a user id if it can be one, which the write path looks up."""
    if synced_by is None:
        return Author(what)
    name = str(synced_by)
    number = int(name) if name.isascii() and name.isdigit() else None
    cause = f"{what} by {name}".replace("\0", "")[:_CAUSE_LENGTH]
    return Author(cause, number if number is not None and 0 < number <= INT8_MAX else None)


def _logged(result: SyncResult, direction: str, author: Author) -> SyncResult:
    """Log one line for the operation, and return its result."""
    log_line = log.warning if result.failed else log.info
    log_line(
        "pair synced" if result.success else "pair not synced",
        user_id=result.user_id,
        specialization=result.specialization,
        direction=direction,
        action=result.action.value,
        progress_level=result.after.progress_level,
        license_level=result.after.license_level,
        old_progress_level=result.before.progress_level,
        old_license_level=result.before.license_level,
        cause=author.cause,
        message=result.message,
    )
    return result
