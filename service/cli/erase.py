"""`levelsync erase`: remove what levelsync stores about a user."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import context, output
from service.cli.context import AsJson, confirm, record
from service.cli.exits import Exit, WrongUse
from service.core.names import counted

if TYPE_CHECKING:
    from service.settings import Settings

_NOT_REACHED = (
    "Not erased: the application's own tables, records that Kafka keeps until the topics' retention ends, "
    "logs, and backups"
)


def erase(
    user: Annotated[int, typer.Argument(metavar="USER", help="The user's id.", min=1)],
    address: Annotated[
        str | None, typer.Option("--email", help="The user's address, if the application has removed the user already.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be removed, and do nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase what levelsync stores about a user. Remove the user from the application first."""
    from events.base import INT8_MAX

    if user > INT8_MAX:
        raise WrongUse(f"no user's id is above {INT8_MAX}")
    report = asyncio.run(_erase(context.settings(), user, address, yes=yes, dry_run=dry_run))
    if as_json:
        output.print_json(report)
    elif not dry_run:
        output.print_line(f"Erased: {sum(report['erased'].values()):,}")
    if report["unfinished_runs"]:
        runs = counted(report["unfinished_runs"], "run of this user has not ended", "runs of this user have not ended")
        output.print_error(f"{runs}: erase again after that")
        raise typer.Exit(Exit.NO)


async def _erase(settings: Settings, user: int, address: str | None, *, yes: bool, dry_run: bool) -> dict[str, Any]:
    from service.cli import reach
    from service.process import removal

    async with reach.database(settings) as conn:
        known = await removal.address_of(conn, user)
        if known is not None:
            output.print_note(
                f"The application still has user {user}: their fences stay, and their next events are stored again"
            )
        names = address or known
        counts = await removal.erase(conn, user, names)
        await conn.rollback()
        _announce(user, counts)
        if not dry_run:
            confirm(f"Erase user {user} from what levelsync stores?", yes=yes)
            counts = await removal.erase(conn, user, names)
            await record(conn, "erase_user", f"{sum(counts.values())} erased")
            await conn.commit()
        left = await removal.unfinished_runs(conn, user)
    return {"user_id": user, "dry_run": dry_run, "erased": counts, "unfinished_runs": left}


def _announce(user: int, counts: dict[str, int]) -> None:
    output.print_note(f"levelsync stores about user {user}:")
    for what, number in counts.items():
        if number:
            output.print_note(f"  {what}: {number:,}")
    if not any(counts.values()):
        output.print_note("  nothing")
    output.print_note(_NOT_REACHED)
