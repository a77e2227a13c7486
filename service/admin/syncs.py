"""Syncs of one user's pairs, with their rows in the audit log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from events import Direction
from service.admin.audit import Entry, audited
from service.admin.errors import AdminError, NoSuch, Refused
from service.admin.identity import Identity
from service.apply.outcomes import Pair
from service.settings import Settings
from service.sync import ProgressLicenseSyncService, SyncRefused, SyncResult, UnknownUser, UserSyncResult


async def sync_pair(
    engine: AsyncEngine, settings: Settings, who: Identity, pair: Pair, direction: Direction
) -> SyncResult:
    """Sync one pair (user, specialization). What the database refused is an answer too (`SyncResult.failed`).

    Raises:
        Forbidden, NoSuch (the user), Refused (the specialization), Busy: nothing was written.
    """
    arguments = {"user_id": pair[0], "specialization": pair[1], "direction": direction}
    async with audited(engine, who, "sync_pair", **arguments) as entry:
        try:
            result = await _service(engine, settings).sync_pair(*pair, direction, who.synced_by, also=_row_of(entry))
        except SyncRefused as refused:
            raise _answer(refused) from refused
        await _tell_refusals(engine, entry, [result])
        return result


async def sync_user(
    engine: AsyncEngine, settings: Settings, who: Identity, user_id: int, direction: Direction
) -> UserSyncResult:
    """Sync every specialization of one user, each in a transaction of its own with its own row in the audit log.

    Raises:
        Forbidden, NoSuch (the user), Busy: what had been synced before stays.
    """
    async with audited(engine, who, "sync_user", user_id=user_id, direction=direction) as entry:
        try:
            done = await _service(engine, settings).sync_user_all_specializations(
                user_id, direction, who.synced_by, also=_row_of(entry)
            )
        except SyncRefused as refused:
            raise _answer(refused) from refused
        await _tell_refusals(engine, entry, done.results.values())
        return done


def _service(engine: AsyncEngine, settings: Settings) -> ProgressLicenseSyncService:
    return ProgressLicenseSyncService(engine, settings)


def _row_of(entry: Entry) -> Callable[[AsyncConnection, SyncResult], Awaitable[None]]:
    async def store(conn: AsyncConnection, result: SyncResult) -> None:
        await entry.done(conn, f"{result.specialization}: {result.message}")

    return store


async def _tell_refusals(engine: AsyncEngine, entry: Entry, results: Iterable[SyncResult]) -> None:
    """What the database refused was rolled back, and its row with it."""
    for result in results:
        if result.refused:
            await entry.failed(engine, f"{result.specialization}: {result.message}")


def _answer(refused: SyncRefused) -> AdminError:
    return NoSuch(str(refused)) if isinstance(refused, UnknownUser) else Refused(str(refused))
