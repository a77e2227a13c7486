"""`levelsync audit`: list who requested what, and with which outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli import context, output
from service.cli.context import AsCsv, AsJson
from service.cli.letter_writes import TIME, moment
from service.core.sheet import ACTION_COLUMNS

if TYPE_CHECKING:
    from datetime import datetime

    from service.admin.audit import AdminAction
    from service.settings import Settings


def audit(
    since: Annotated[str | None, typer.Option(help=f"Only rows since {TIME}.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only rows of this subject.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="The maximum number of rows to show, newest first.", show_default="1000; CSV: all"),
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """List the audit log, newest first: writes, refusals and failed sign-ins."""
    context.check_one_form(as_json, as_csv)
    asked = moment("since", since), subject
    if as_csv:
        sheet = output.Csv(ACTION_COLUMNS)
        asyncio.run(_read(context.settings(), *asked, limit, sheet.add))
        sheet.end()
        return
    actions: list[AdminAction] = []
    most = limit or _SHOWN
    asyncio.run(_read(context.settings(), *asked, most + 1, actions.append))
    shown = actions[:most]
    if as_json:
        output.print_json({"actions": shown})
    elif not shown:
        output.print_line("No rows in the audit log.")
    else:
        spare = ("address", "times", "role", "detail", "arguments")
        output.print_table("Audit log, newest first", _COLUMNS, map(_line, shown), spare)
    if len(actions) > most:
        output.print_note(f"The newest {most:,}: --limit shows more")


_SHOWN = 1000
_COLUMNS = ("at", "subject", "role", "action", "arguments", "outcome", "times", "detail", "address")


def _line(action: AdminAction) -> tuple[object, ...]:
    arguments = ", ".join(f"{name} {value}" for name, value in action.arguments.items() if value is not None)
    return (
        output.when(action.at),
        action.subject,
        action.role,
        action.action,
        arguments,
        action.outcome,
        action.times,
        action.detail,
        action.client_address,
    )


async def _read(
    settings: Settings,
    since: datetime | None,
    subject: str | None,
    limit: int | None,
    show: Callable[[AdminAction], None],
) -> None:
    from service.admin.audit import stream_actions
    from service.cli import reach

    async with reach.database(settings) as conn:
        async for action in stream_actions(conn, since, subject, limit):
            show(action)
