"""`levelsync runs`: reconcile runs, newest first; one run; its issues; cancelling it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from service.cli import context, output
from service.cli.audited import record
from service.cli.context import AsJson
from service.cli.exits import SaidNo, WrongUse
from service.cli.next_steps import say_next
from service.cli.reconcile import show_report

if TYPE_CHECKING:
    from service.settings import Settings

_PAGE = 1000


def runs(
    run_id: Annotated[str | None, typer.Argument(metavar="ID", help="A run's id.")] = None,
    issues: Annotated[bool, typer.Option("--issues", help="List what the run found.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="End the run; what it has healed stays healed.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Runs to list.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the runs, newest first; with an ID show that one, its issues, or cancel it."""
    settings = context.settings()
    if run_id is None:
        if issues or cancel:
            raise WrongUse("--issues and --cancel need a run's ID: levelsync runs lists them")
        _show_runs(asyncio.run(_list(settings, limit)), as_json=as_json)
    elif issues:
        show_issues(asyncio.run(issues_of(settings, _parse(run_id))), as_json=as_json)
    else:
        report = asyncio.run(_one(settings, _parse(run_id), cancel=cancel))
        if as_json:
            output.print_json(report)
        else:
            show_report(report)
            say_next(report)


def _parse(run_id: str) -> UUID:
    try:
        return UUID(run_id)
    except ValueError as error:
        raise WrongUse(f"{run_id} is no run's id: levelsync runs lists them") from error


async def _list(settings: Settings, limit: int) -> list[dict[str, Any]]:
    from service.cli import reach
    from service.reconcile.read import read_runs, report_of

    async with reach.database(settings) as conn:
        return [await report_of(conn, run) for run in await read_runs(conn, limit)]


async def _one(settings: Settings, run_id: UUID, *, cancel: bool) -> dict[str, Any]:
    from service.cli import reach
    from service.reconcile.finish import cancel_run
    from service.reconcile.read import read_run, report_of

    async with reach.database(settings) as conn:
        ended = cancel and not await cancel_run(conn, run_id)
        if cancel and not ended:
            await record(conn, "cancel_run", run_id=str(run_id))
        await conn.commit()
        run = await read_run(conn, run_id)
        if run is None:
            raise SaidNo(f"there is no run {run_id}: levelsync runs lists them")
        if ended:
            output.remark("It had ended already: nothing was cancelled.")
        return await report_of(conn, run)


async def issues_of(settings: Settings, run_id: UUID) -> list[dict[str, Any]]:
    """Read every issue that a run kept, in key order.

    Raises:
        SaidNo: there is no such run.
    """
    from service.cli import reach
    from service.reconcile.read import read_issues, read_run

    found: list[dict[str, Any]] = []
    async with reach.database(settings) as conn:
        if await read_run(conn, run_id) is None:
            raise SaidNo(f"there is no run {run_id}: levelsync runs lists them")
        while page := await read_issues(conn, run_id, _PAGE, _behind(found)):
            found += page
    return found


def _behind(found: list[dict[str, Any]]) -> tuple[int, str]:
    return (found[-1]["user_id"], found[-1]["specialization"]) if found else (0, "")


def _show_runs(reports: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        output.print_json({"runs": reports})
    elif not reports:
        output.say("No runs yet. Ask for one: levelsync reconcile")
    else:
        columns = ("id", "requested", "status", "kind", "direction", "scanned", "differ", "lowered", "healed")
        output.print_table("Reconcile runs, newest first", columns, map(_line, reports))


def _line(report: dict[str, Any]) -> tuple[object, ...]:
    counts = report["counts"]
    kind = "dry run" if report["dry_run"] else "heal"
    differ = counts["scanned"] - counts["matching"]
    when = report["requested_at"][:19].replace("T", " ")
    return (
        report["run_id"],
        when,
        report["status"],
        kind,
        report["direction"],
        counts["scanned"],
        differ,
        counts["lowered"],
        counts["healed"],
    )


def show_issues(found: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print the issues of a run."""
    if as_json:
        output.print_json({"issues": lowered_first(found)})
    elif not found:
        output.say("The run kept no issues.")
    else:
        columns = ("user", "specialization", "kind", "progress", "license", "falls", "status", "detail")
        output.print_table("Issues", columns, map(_issue_line, lowered_first(found)))


def lowered_first(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put the pairs whose level falls before all others; each part stays in key order."""
    return sorted(found, key=lambda issue: not issue["lowered"])


def _issue_line(issue: dict[str, Any]) -> tuple[object, ...]:
    names = ("user_id", "specialization", "issue_type", "progress_level", "license_level")
    return (*(issue[name] for name in names), "yes" if issue["lowered"] else "", issue["status"], issue["detail"])
