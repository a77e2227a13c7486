"""`levelsync audit`: who asked for what, and with which outcome."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli import context, output
from service.cli.context import AsCsv, AsJson
from service.cli.letter_view import when
from service.cli.letter_writes import TIME, moment

if TYPE_CHECKING:
    from datetime import datetime

    from service.admin.audit import AdminAction
    from service.settings import Settings


def audit(
    since: Annotated[str | None, typer.Option(help=f"Only what happened since {TIME}.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only what this subject asked for.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to show at most, the newest first.")] = 1000,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """List the audit log, newest first: every write, every refusal, and sign-ins that failed."""
    context.one_form(as_json, as_csv)
    actions = asyncio.run(_read(context.settings(), moment("since", since), subject, limit + 1))
    shown = actions[:limit]
    if as_json:
        output.print_json({"actions": shown})
    elif as_csv:
        output.print_csv(_CSV, ([getattr(action, name) for name in _CSV] for action in shown))
    elif not shown:
        output.say("No rows in the audit log.")
    else:
        output.print_table("Audit log, newest first", _COLUMNS, map(_line, shown))
    if len(actions) > limit:
        output.remark(f"The newest {limit}: --limit shows more")


_CSV = (
    "id",
    "at",
    "subject",
    "role",
    "action",
    "arguments",
    "outcome",
    "times",
    "detail",
    "client_address",
    "request_id",
)
_COLUMNS = ("at", "subject", "role", "action", "arguments", "outcome", "times", "detail", "address")


def _line(action: AdminAction) -> tuple[object, ...]:
    said = ", ".join(f"{name} {value}" for name, value in action.arguments.items() if value is not None)
    return (
        when(action.at),
        action.subject,
        action.role,
        action.action,
        said,
        action.outcome,
        action.times,
        action.detail,
        action.client_address,
    )


async def _read(settings: Settings, since: datetime | None, subject: str | None, limit: int) -> list[AdminAction]:
    from service.admin.audit import read_actions
    from service.cli import reach

    async with reach.database(settings) as conn:
        return await read_actions(conn, since, subject, limit)
