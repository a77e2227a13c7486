"""`levelsync drift`: compare the two tables as they are now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import context, output
from service.cli.context import AsCsv, AsJson
from service.cli.exits import Exit, WrongUse
from service.core.names import counted

if TYPE_CHECKING:
    from service.settings import Settings
    from service.sync import DesyncIssue

_SHOWN = 1000
_COLUMNS = ("user", "email", "specialization", "kind", "progress", "license", "what to do")


def drift(
    specialization: Annotated[
        str | None,
        typer.Option(help="Only this specialization.", show_default="all", autocompletion=context.specializations),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, help="The maximum number of rows to show. All rows are counted.", show_default="1000; CSV: all"
        ),
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Compare the two tables now. A pair whose event is not applied yet differs too; `levelsync reconcile` waits."""
    context.check_one_form(as_json, as_csv)
    found: list[DesyncIssue] = []
    sheet = output.Csv(_names()) if as_csv else None
    most = limit or (None if as_csv else _SHOWN)
    total = asyncio.run(_compare(context.settings(), specialization, most, sheet.add if sheet else found.append))
    if as_json:
        output.print_json({"total": total, "issues": [issue.as_dict() for issue in found]})
    elif sheet is not None:
        sheet.end()
    elif not total:
        output.print_line("The two tables agree.")
    else:
        title = counted(total, "pair differs", "pairs differ")
        output.print_table(title, _COLUMNS, map(_line, found), spare=("email", "what to do"))
        output.print_note(
            "To confirm that no event explains them: levelsync reconcile. To repair one user: levelsync sync USER --all"
        )
    if most is not None and total > most:
        output.print_note(f"The first {most:,} of {total:,}: --limit shows more")
    if total:
        raise typer.Exit(Exit.NO)


def _names() -> list[str]:
    from dataclasses import fields

    from service.sync import DesyncIssue

    return [field.name for field in fields(DesyncIssue)]


def _line(issue: DesyncIssue) -> tuple[Any, ...]:
    levels = (issue.progress_level, issue.license_level)
    action = issue.recommended_action.replace("_", " ")
    return (issue.user_id, issue.user_email, issue.specialization, issue.issue_type, *levels, action)


async def _compare(
    settings: Settings, specialization: str | None, most: int | None, show: Callable[[DesyncIssue], None]
) -> int:
    """Show the first `most` issues as they arrive, and return how many there are."""
    from service.cli import reach
    from service.sync import ProgressLicenseSyncService, UnknownSpecialization

    total = 0
    async with reach.engine(settings) as engine:
        found = ProgressLicenseSyncService(engine, settings).find_desync_issues(specialization)
        try:
            async with aclosing(found) as issues:
                async for issue in issues:
                    total += 1
                    if most is None or total <= most:
                        show(issue)
        except UnknownSpecialization as error:
            raise WrongUse(str(error)) from error
    return total
