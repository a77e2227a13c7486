"""`levelsync runs`: list the reconcile runs, show one run or its issues, cancel a run."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from service.cli import context, output
from service.cli.context import AsCsv, AsJson, record
from service.cli.exits import WrongUse
from service.cli.reconcile import print_next_steps, show_report
from service.core.sheet import ISSUE_COLUMNS

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from service.reconcile.values import FoundIssue, Run, RunReport
    from service.settings import Settings

_PREFIX = re.compile(r"[0-9a-fA-F-]{6,35}")
_SHORT = 8
"""Characters of a run's id in a table on a terminal."""


def runs(
    run_id: Annotated[
        str | None,
        typer.Argument(
            metavar="ID", help="A run's id, or its first 6 characters or more.", autocompletion=context.run_ids
        ),
    ] = None,
    issues: Annotated[bool, typer.Option("--issues", help="List the issues that the run found.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="End the run. What it has healed stays healed.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Runs to list.")] = 20,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """List the runs, newest first; with an ID, show or cancel that run, or list its issues."""
    context.check_one_form(as_json, as_csv)
    if as_csv and not issues:
        raise WrongUse("--csv prints a run's issues: add --issues")
    settings = context.settings()
    if run_id is None:
        if issues or cancel:
            raise WrongUse("--issues and --cancel need a run's ID: levelsync runs lists them")
        _show_runs(asyncio.run(_list(settings, limit)), as_json=as_json)
    elif issues:
        asyncio.run(_print_issues(settings, run_id, as_json=as_json, as_csv=as_csv))
    else:
        report = asyncio.run(_one(settings, run_id, cancel=cancel))
        if as_json:
            output.print_json(report.as_dict())
        else:
            show_report(report)
            print_next_steps(report)


async def _find(conn: AsyncConnection, given: str) -> Run:
    """Find a run by its id, or by a prefix that no other run's id has.

    Raises:
        WrongUse: `given` is neither, or there is no such run.
    """
    from service.reconcile.runs import find_runs_by_prefix, read_run

    try:
        run = await read_run(conn, UUID(given))
        found = [] if run is None else [run]
    except ValueError as error:
        if not _PREFIX.fullmatch(given):
            problem = f"{given} is neither a run's id nor the first 6 characters of one"
            raise WrongUse(f"{problem}: levelsync runs lists them") from error
        found = await find_runs_by_prefix(conn, given.lower())
    if not found:
        raise WrongUse(f"there is no run {given}: levelsync runs lists them")
    if len(found) > 1:
        raise WrongUse(f"several runs begin with {given}: give more characters of the id")
    return found[0]


async def _list(settings: Settings, limit: int) -> list[RunReport]:
    from service.cli import reach
    from service.reconcile.runs import read_runs, report_of

    async with reach.database(settings) as conn:
        return [await report_of(conn, run) for run in await read_runs(conn, limit)]


async def _one(settings: Settings, given: str, *, cancel: bool) -> RunReport:
    from service.cli import reach
    from service.reconcile.runs import cancel_run, read_run, report_of

    async with reach.database(settings) as conn:
        run_id = (await _find(conn, given)).id
        ended = cancel and not await cancel_run(conn, run_id)
        if cancel and not ended:
            await record(conn, "cancel_run", run_id=str(run_id))
        await conn.commit()
        run = await read_run(conn, run_id)
        assert run is not None  # noqa: S101 - `_find` has read it
        if ended:
            output.print_note("The run had ended already, so nothing was cancelled.")
        return await report_of(conn, run)


async def _print_issues(settings: Settings, given: str, *, as_json: bool, as_csv: bool) -> None:
    """Print the issues of a run; those that lower a level come first. CSV is printed page by page."""
    from service.cli import reach
    from service.reconcile.runs import lowered_first

    async with reach.database(settings) as conn:
        run_id = (await _find(conn, given)).id
        if as_csv:
            sheet = output.Csv(ISSUE_COLUMNS)
            async for issue in lowered_first(conn, run_id):
                sheet.add(issue)
            sheet.end()
        else:
            show_issues([issue async for issue in lowered_first(conn, run_id)], as_json=as_json)


def _show_runs(reports: list[RunReport], *, as_json: bool) -> None:
    if as_json:
        output.print_json({"runs": [report.as_dict() for report in reports]})
    elif not reports:
        output.print_line("No runs yet. Start one: levelsync reconcile")
    else:
        columns = ("id", "requested", "status", "kind", "direction", "scanned", "differ", "lowered", "healed")
        spare = ("direction", "scanned", "lowered", "requested", "healed")
        output.print_table("Reconcile runs, newest first", columns, map(_line, reports), spare)


def _line(report: RunReport) -> tuple[object, ...]:
    counts = report.counts
    kind = "dry run" if report.dry_run else "heal"
    differ = counts["scanned"] - counts["matching"]
    when = f"{report.requested_at:%Y-%m-%d %H:%M:%S}"
    run_id = str(report.run_id)
    return (
        run_id[:_SHORT] if output.stdout_console().is_terminal else run_id,
        when,
        report.status,
        kind,
        report.direction,
        counts["scanned"],
        differ,
        counts["lowered"],
        counts["healed"],
    )


def show_issues(found: list[FoundIssue], *, as_json: bool = False, title: str = "Issues") -> None:
    """Print issues of a run."""
    if as_json:
        output.print_json({"issues": found})
    elif not found:
        output.print_line("The run has no issues.")
    else:
        columns = ("user", "specialization", "kind", "progress", "license", "falls", "status", "detail")
        output.print_table(title, columns, map(_issue_line, found), spare=("detail", "status", "kind"))


def _issue_line(issue: FoundIssue) -> tuple[object, ...]:
    return (
        issue.user_id,
        issue.specialization,
        issue.issue_type,
        issue.progress_level,
        issue.license_level,
        "yes" if issue.lowered else "",
        issue.status,
        issue.detail,
    )
