"""Find a user, read their pairs, and sync them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from events import Direction
from service.admin.audit import Entry, audited, check
from service.admin.database import busy_if_unavailable
from service.admin.identity import AdminError, Identity, NoSuch, Refused, user_id_of
from service.admin.pairs import PairRow, UserPair
from service.core.outcomes import Pair
from service.levels import Curriculum, read_curriculum
from service.settings import Settings
from service.sync import ProgressLicenseSyncService, SyncRefused, SyncResult, UnknownUser, UserSyncResult

MAX_HISTORY = 50
_MAX_FOUND = 20
_USER = "SELECT u.id, to_jsonb(u) ->> 'name' AS name, u.email, u.role::text AS role FROM users u"
_BY_ID = text(f"{_USER} WHERE u.id = CAST(:id AS bigint)")
_BY_EMAIL = text(f"{_USER} WHERE u.email = :email")
_BY_BEGINNING = text(f"""
    {_USER} WHERE u.id IN (SELECT f.id FROM users f WHERE starts_with(lower(f.email), lower(:email))
                            ORDER BY f.email LIMIT :limit)
     ORDER BY u.email
""")
"""The inner query applies the limit first, so that only the shown rows are converted to JSON."""
_PROGRESS = text("""
    SELECT specialization_id AS specialization, current_level AS level, total_xp AS xp, updated_at
      FROM specialization_progress WHERE student_id = CAST(:id AS bigint) ORDER BY 1
""")
_LICENSES = text("""
    SELECT id, specialization_type AS specialization, current_level AS level, max_achieved_level AS highest,
           updated_at
      FROM user_licenses WHERE user_id = CAST(:id AS bigint) ORDER BY 2
""")
_HISTORY = text("""
    SELECT l.specialization_type AS specialization, h.from_level, h.to_level, h.advanced_at, h.advancement_reason
      FROM license_progressions h JOIN user_licenses l ON l.id = h.user_license_id
     WHERE l.user_id = CAST(:id AS bigint) ORDER BY h.advanced_at DESC NULLS LAST LIMIT :limit
""")
_FENCES = text("SELECT * FROM levelsync.fences WHERE user_id = CAST(:id AS bigint) ORDER BY specialization")


@dataclass(frozen=True, slots=True)
class User:
    """A row of `users`."""

    id: int
    name: str | None
    email: str | None
    role: str | None


@dataclass(frozen=True, slots=True)
class UserView:
    """One user with their pairs, history and fences."""

    user: User
    pairs: list[UserPair]
    history: list[Any]
    """Rows of specialization, from_level, to_level, advanced_at and advancement_reason, the newest first."""
    fences: list[Any]
    """Rows of user_id, specialization, decided_at, level and decided_by."""


async def find_users(engine: AsyncEngine, who: Identity, wanted: str) -> list[User]:
    """Find users by an id, an e-mail address, or the beginning of an address; return at most 20.

    Raises:
        Forbidden, Busy.
    """
    await check(engine, who)
    number = user_id_of(wanted)
    with busy_if_unavailable():
        async with engine.connect() as conn:
            if number is not None:
                return await _users(conn, _BY_ID, id=number)
            exact = await _users(conn, _BY_EMAIL, email=wanted)
            return exact or await _users(conn, _BY_BEGINNING, email=wanted, limit=_MAX_FOUND)


async def read_user(engine: AsyncEngine, who: Identity, user_id: int) -> UserView:
    """Return one user.

    Raises:
        Forbidden, NoSuch, Busy.
    """
    await check(engine, who)
    if user_id_of(str(user_id)) is None:
        raise NoSuch("There is no user with this id.")
    with busy_if_unavailable():
        async with engine.connect() as conn:
            found = await _users(conn, _BY_ID, id=user_id)
            if not found:
                raise NoSuch(f"There is no user {user_id}.")
            pairs = await _pairs(conn, user_id)
            history = list(await conn.execute(_HISTORY, {"id": user_id, "limit": MAX_HISTORY}))
            return UserView(found[0], pairs, history, list(await conn.execute(_FENCES, {"id": user_id})))


async def read_specializations(engine: AsyncEngine) -> list[str]:
    """Return the names of all specializations.

    Raises:
        Busy.
    """
    with busy_if_unavailable():
        async with engine.connect() as conn:
            return (await read_curriculum(conn)).names


async def _users(conn: AsyncConnection, query: Any, **values: Any) -> list[User]:
    return [User(*row) for row in await conn.execute(query, values)]


async def _pairs(conn: AsyncConnection, user_id: int) -> list[UserPair]:
    curriculum = await read_curriculum(conn)
    progress = {row.specialization: PairRow(*row) for row in await conn.execute(_PROGRESS, {"id": user_id})}
    licenses: dict[str, list[PairRow]] = {}
    for row in await conn.execute(_LICENSES, {"id": user_id}):
        name = curriculum.canonical(row.specialization) or row.specialization
        licenses.setdefault(name, []).append(PairRow(row.specialization, row.level, row.highest, row.updated_at))
    names = sorted({*curriculum.names, *progress, *licenses})
    return [_pair(name, curriculum, progress, licenses.get(name, ())) for name in names]


def _pair(name: str, curriculum: Curriculum, progress: Mapping[str, PairRow], licenses: Iterable[PairRow]) -> UserPair:
    found = sorted(licenses, key=lambda row: row.specialization != name)  # the one with the exact name first
    own = found[0] if found else None
    return UserPair(name, curriculum.levels.get(name), progress.get(name), own, tuple(found[1:]))


async def sync_pair(
    engine: AsyncEngine, settings: Settings, who: Identity, pair: Pair, direction: Direction
) -> SyncResult:
    """Sync one pair (user, specialization). A refusal by the database is a result, not an error (`SyncResult.failed`).

    Raises:
        Forbidden, NoSuch (the user), Refused (the specialization), Busy: nothing was written.
    """
    arguments = {"user_id": pair[0], "specialization": pair[1], "direction": direction}
    async with audited(engine, who, "sync_pair", **arguments) as entry:
        try:
            result = await _service(engine, settings).sync_pair(*pair, direction, who.synced_by, also=_row_of(entry))
        except SyncRefused as refused:
            raise _admin_error(refused) from refused
        await _audit_refusals(engine, entry, [result])
        return result


async def sync_user(
    engine: AsyncEngine, settings: Settings, who: Identity, user_id: int, direction: Direction
) -> UserSyncResult:
    """Sync every specialization of one user, each in a separate transaction with its own row in the audit log.

    Raises:
        Forbidden, NoSuch (the user).
        Busy: the database cannot answer. Specializations that were synced before stay synced.
    """
    async with audited(engine, who, "sync_user", user_id=user_id, direction=direction) as entry:
        try:
            done = await _service(engine, settings).sync_user_all_specializations(
                user_id, direction, who.synced_by, also=_row_of(entry)
            )
        except SyncRefused as refused:
            raise _admin_error(refused) from refused
        await _audit_refusals(engine, entry, done.results.values())
        return done


def _service(engine: AsyncEngine, settings: Settings) -> ProgressLicenseSyncService:
    return ProgressLicenseSyncService(engine, settings)


def _row_of(entry: Entry) -> Callable[[AsyncConnection, SyncResult], Awaitable[None]]:
    async def store(conn: AsyncConnection, result: SyncResult) -> None:
        await entry.done(conn, f"{result.specialization}: {result.message}")

    return store


async def _audit_refusals(engine: AsyncEngine, entry: Entry, results: Iterable[SyncResult]) -> None:
    """Store a row for each refusal by the database, because the rollback removed the row of its transaction."""
    for result in results:
        if result.refused:
            await entry.failed(engine, f"{result.specialization}: {result.message}")


def _admin_error(refused: SyncRefused) -> AdminError:
    return NoSuch(str(refused)) if isinstance(refused, UnknownUser) else Refused(str(refused))
