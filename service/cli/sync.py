"""`levelsync sync`: bring the pairs of one user into agreement, or set the level of one pair."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, cast

import typer

from service.cli import context, output
from service.cli.context import AsJson, record
from service.cli.exits import Exit, WrongUse
from service.core.names import DIRECTIONS

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from events import Direction
    from service.settings import Settings
    from service.sync import ProgressLicenseSyncService, SyncResult, UserSyncResult
    from service.sync.service import InTransaction

_AUTHOR = "levelsync sync"


def sync(
    user: Annotated[int, typer.Argument(metavar="USER", help="The user's id.")],
    specialization: Annotated[
        str | None,
        typer.Option(help="Such as PLAYER; the case does not matter.", autocompletion=context.specializations),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every specialization in the database.")] = False,
    direction: Annotated[
        str | None,
        typer.Option(
            help=f"Which row to believe: {', '.join(DIRECTIONS)}.",
            show_default=DIRECTIONS[0],
            autocompletion=context.complete(DIRECTIONS),
        ),
    ] = None,
    level: Annotated[int | None, typer.Option(help="Give both rows this level, whatever they contain.")] = None,
    as_json: AsJson = False,
) -> None:
    """Bring the two rows of a user's pairs into agreement; --level decides a pair that no direction can repair."""
    _check(specialization, every=every, direction=direction, level=level)
    settings = context.settings()
    if specialization is None:
        all_ = asyncio.run(_sync_all(settings, user, _direction(direction)))
        _show_all(all_, as_json=as_json)
        failed = not all_.success
    else:
        one = asyncio.run(_sync_one(settings, user, specialization, _direction(direction), level))
        _show_one(one, as_json=as_json)
        failed = one.failed
    if failed:
        raise typer.Exit(Exit.NO)


def _check(specialization: str | None, *, every: bool, direction: str | None, level: int | None) -> None:
    if (specialization is None) != every:
        raise WrongUse("give either --specialization or --all")
    if level is not None and (every or direction is not None):
        raise WrongUse("--level decides both rows of one pair: use it with --specialization and without --direction")
    if direction is not None and direction not in DIRECTIONS:
        raise WrongUse(f"there is no direction {direction}; the directions are {', '.join(DIRECTIONS)}")


def _direction(given: str | None) -> Direction:
    return cast("Direction", given or DIRECTIONS[0])


async def _sync_one(
    settings: Settings, user: int, specialization: str, direction: Direction, level: int | None
) -> SyncResult:
    async with _service(settings) as service:
        if level is not None:
            row = _row_of("decide_level", level=level)
            return await service.set_level(user, specialization, level, _AUTHOR, also=row)
        row = _row_of("sync_pair", direction=direction)
        return await service.sync_pair(user, specialization, direction, _AUTHOR, also=row)


async def _sync_all(settings: Settings, user: int, direction: Direction) -> UserSyncResult:
    async with _service(settings) as service:
        return await service.sync_user_all_specializations(
            user, direction, _AUTHOR, also=_row_of("sync_user", direction=direction)
        )


def _row_of(action: str, **arguments: object) -> InTransaction:
    """Return a function that adds a row to the audit log, in the transaction of the sync."""

    async def store(conn: AsyncConnection, result: SyncResult) -> None:
        pair = {"user_id": result.user_id, "specialization": result.specialization}
        await record(conn, action, result.message, **pair, **arguments)

    return store


@asynccontextmanager
async def _service(settings: Settings) -> AsyncIterator[ProgressLicenseSyncService]:
    """Yield the service with its own engine. Raise its refusals as `WrongUse`, PostgreSQL's faults as `Unreachable`."""
    from service.cli import reach
    from service.sync import ProgressLicenseSyncService, SyncRefused
    from service.telemetry.logs import configure_logs

    configure_logs(settings)
    async with reach.engine(settings) as engine:
        try:
            yield ProgressLicenseSyncService(engine, settings)
        except SyncRefused as refused:
            raise WrongUse(str(refused)) from refused


def _show_one(result: SyncResult, *, as_json: bool) -> None:
    if as_json:
        output.print_json(result.as_dict())
    else:
        output.print_line(_line(result))


def _show_all(result: UserSyncResult, *, as_json: bool) -> None:
    if as_json:
        output.print_json(result.as_dict())
    else:
        for one in result.results.values():
            output.print_line(_line(one))


def _line(result: SyncResult) -> str:
    return f"User {result.user_id}, {result.specialization}: {result.message}"
