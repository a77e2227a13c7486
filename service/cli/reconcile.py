"""`levelsync reconcile`: request a run, follow it, print its report."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from service.cli import context, output
from service.cli.context import AsJson, confirm, has_terminal
from service.cli.exits import Exit, NotDone, Unreachable, WrongUse
from service.core.names import DIRECTIONS, counted

if TYPE_CHECKING:
    from events import ReconcileRequested
    from service.reconcile.values import ReportProgress, RunReport
    from service.settings import Settings


def print_next_steps(report: RunReport) -> None:
    """Print on stderr which commands may follow."""
    for sentence in next_steps(report):
        output.print_note(sentence)


def next_steps(report: RunReport) -> list[str]:
    """Return a sentence for each command that may follow a run; none if nothing is left to do."""
    from service.reconcile.values import healable

    counts, look = report.counts, f"levelsync runs {report.run_id}"
    differs = healable(counts)
    return [
        sentence
        for sentence, holds in (
            (f"The run continues: {look} shows its progress.", report.finished_at is None),
            (f"To see the pairs: {look} --issues", differs or counts["needs_decision"] or counts["failed"]),
            (
                "To decide a pair: levelsync sync USER --specialization X --level N",
                counts["needs_decision"],
            ),
            (
                f"To heal them: levelsync reconcile --direction {report.direction}{_narrowed(report)} --execute",
                differs and report.dry_run and report.status == "completed",
            ),
        )
        if holds
    ]


def _narrowed(report: RunReport) -> str:
    specialization, user = report.specialization, report.user_id
    return (f" --specialization {specialization}" if specialization else "") + (f" --user {user}" if user else "")


TAKEN_WITHIN = 30.0
"""Seconds to wait until a worker has read the request."""
_LOOK_EVERY = 0.2
_FIRST = 10
"""Issues that the command prints below a report."""
_USER = """
    SELECT EXISTS (SELECT FROM users WHERE id = CAST(:id AS bigint))
        OR EXISTS (SELECT FROM specialization_progress WHERE student_id = CAST(:id AS bigint))
        OR EXISTS (SELECT FROM user_licenses WHERE user_id = CAST(:id AS bigint))
"""


def reconcile(
    direction: Annotated[
        str,
        typer.Option(
            help=f"Which row to believe: {', '.join(DIRECTIONS)}.", autocompletion=context.complete(DIRECTIONS)
        ),
    ] = DIRECTIONS[0],
    specialization: Annotated[
        str | None,
        typer.Option(help="Only this specialization.", show_default="all", autocompletion=context.specializations),
    ] = None,
    user: Annotated[int | None, typer.Option(help="Only this user.", show_default="all")] = None,
    execute: Annotated[
        bool, typer.Option("--execute", help="Heal. Without it, the run is a dry run: it reports and writes nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Heal even if the breaker would stop the run.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, however many levels would fall.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the run to its end.")] = True,
    as_json: AsJson = False,
) -> None:
    """Compare the two tables in full, through Kafka; with --execute, heal what differs.

    On a terminal, --execute first starts a dry run, which counts the levels that would fall. If there are any, it asks.
    The real run may lower no more levels than that.
    """
    if direction not in DIRECTIONS:
        raise WrongUse(f"there is no direction {direction}; the directions are {', '.join(DIRECTIONS)}")
    settings = context.settings()
    limit = None
    if execute and not yes and has_terminal():
        dry_run = _ask(settings, _request(direction, specialization, user), wait=True)
        limit = _agree_on_lowered(dry_run)
    wanted = _request(direction, specialization, user, dry_run=not execute, force=force, max_lowered=limit)
    report = _ask(settings, wanted, wait=wait)
    if as_json:
        output.print_json(report.as_dict())
    else:
        show_report(report)
        asyncio.run(_show_first_issues(settings, report))
        print_next_steps(report)
    if wait and is_no(report):
        raise typer.Exit(Exit.NO)


async def _show_first_issues(settings: Settings, report: RunReport) -> None:
    """Print the first ten issues of a run that has ended; those that lower a level come first."""
    from service.cli import reach
    from service.cli.runs import show_issues
    from service.reconcile.runs import lowered_first

    counts = report.counts
    if report.finished_at is None or counts["scanned"] == counts["matching"]:
        return
    found = []
    async with (
        reach.database(settings) as conn,
        aclosing(lowered_first(conn, report.run_id, _FIRST + 1)) as issues,
    ):
        async for issue in issues:
            found.append(issue)
            if len(found) > _FIRST:
                break
    if found:
        title = f"The first {_FIRST} issues" if len(found) > _FIRST else counted(len(found), "issue")
        show_issues(found[:_FIRST], title=title)


def _ask(settings: Settings, request: ReconcileRequested, *, wait: bool) -> RunReport:
    try:
        return asyncio.run(ask(settings, request, wait=wait))
    except KeyboardInterrupt:
        output.print_note(f"levelsync: the run continues. Follow it: levelsync runs {request.id}; end it: add --cancel")
        raise


def _agree_on_lowered(dry_run: RunReport) -> int:
    """Return how many levels the real run may lower: as many as the dry run counted. If there are any, ask.

    Raises:
        NotDone: the dry run did not complete, or the answer is no.
    """
    from service.reconcile.values import healable

    if dry_run.status != "completed":
        raise NotDone(f"the first dry run ended as {dry_run.status}, so nothing was healed")
    lowered: int = dry_run.counts["lowered"]
    levels = counted(lowered, "level")
    output.print_note(f"Dry run {dry_run.run_id}: {healable(dry_run.counts):,} to heal, {levels} would fall")
    if lowered:
        confirm(f"Heal, and lower {levels}?", yes=False)
    return lowered


def is_no(report: RunReport) -> bool:
    """Return whether the exit code is 1: the run did not complete, left pairs, or is a dry run that found some."""
    from service.reconcile.values import healable

    counts = report.counts
    differs = healable(counts)
    left = counts["failed"] or counts["unconfirmed"] or (report.dry_run and differs)
    return report.status != "completed" or bool(left)


def show_report(report: RunReport) -> None:
    """Print a run as text."""
    kind = "dry run" if report.dry_run else "run"
    narrowed = {"specialization": report.specialization, "user_id": report.user_id}
    only = "".join(f", {name} {value}" for name, value in narrowed.items() if value is not None)
    output.print_line(f"Run {report.run_id}: {report.status.replace('_', ' ')} ({kind}, {report.direction}{only})")
    if report.finished_at is None:
        progress = report.progress
        done = f"{progress.ranges_done:,} of {progress.ranges_total:,} ranges done"
        output.print_line(f"  {in_words(progress)}{_rate(progress)}, {done}")
    for name, number in report.counts.items():
        output.print_line(f"  {name.replace('_', ' '):<17} {number:>12,}")
    if report.counts["unconfirmed"]:
        _print_unconfirmed(report.unconfirmed_by_kind)
    if report.status == "stopped_by_breaker" and not report.would_stop:
        output.print_line(
            "  Nothing was written: more levels would fall than the request allows. A dry run counts them again."
        )
    if report.would_stop:
        output.print_line("  The breaker stops such a run before its first write; --force overrides it.")


def _print_unconfirmed(kinds: Mapping[str, int]) -> None:
    output.print_line(
        "  Nothing is confirmed: the appliers have not read all events, and those may explain what the scan saw:"
    )
    for kind, number in kinds.items():
        output.print_line(f"    {kind.replace('_', ' '):<22} {number:>5,}")
    output.print_line("  Start `levelsync serve` with the role apply, wait until its lag is 0, and repeat the run.")


def _request(
    direction: str,
    specialization: str | None,
    user: int | None,
    *,
    dry_run: bool = True,
    force: bool = False,
    max_lowered: int | None = None,
) -> ReconcileRequested:
    from pydantic import ValidationError

    from events import ReconcileRequested

    try:
        return ReconcileRequested.model_validate(
            {
                "direction": direction,
                "dry_run": dry_run,
                "force": force,
                "max_lowered": max_lowered,
                "specialization": specialization,
                "user_id": user,
                "requested_by": "levelsync reconcile",
            }
        )
    except ValidationError as error:
        raise WrongUse("; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())) from error


async def ask(settings: Settings, request: ReconcileRequested, *, wait: bool) -> RunReport:
    """Publish a request and return the report of its run: with `wait` at its end, else when a worker has read it.

    Raises:
        Unreachable: PostgreSQL or Kafka does not answer, or no worker read the request within 30 s.
        WrongUse: there is no such specialization or user.
    """
    from service.cli import reach

    async with reach.database(settings) as conn:  # first, because a run cannot be followed without PostgreSQL
        await conn.rollback()
        await _check_names(conn, request)
        await _publish(settings, request)
        output.print_note(f"levelsync: requested run {request.id}")
        run_id = UUID(request.id)
        report = await _taken(conn, run_id)
        return await _follow(conn, run_id) if wait else report


async def _check_names(conn: Any, request: ReconcileRequested) -> None:
    """Check that the specialization and the user of the request exist.

    A user whom the application has removed exists as long as one of the two tables has rows of them.

    Raises:
        WrongUse: one of them does not exist.
    """
    from sqlalchemy import text

    from service.levels import read_curriculum

    curriculum, name = await read_curriculum(conn), request.specialization
    if name is not None and curriculum.canonical(name) is None:
        raise WrongUse(f"there is no specialization {name}; there are {', '.join(curriculum.names)}")
    if request.user_id is not None and not await conn.scalar(text(_USER), {"id": request.user_id}):
        raise WrongUse(f"there is no user {request.user_id}")
    await conn.rollback()


async def _publish(settings: Settings, request: ReconcileRequested) -> None:
    from service.cli import reach
    from service.stream.producer import NotDelivered, deliver, running_producer

    async with reach.kafka(settings):
        await reach.topics(settings)
        async with running_producer(settings) as producer:
            try:
                await deliver(producer, [request.to_kafka()])
            except NotDelivered as error:
                raise Unreachable(f"Kafka did not accept the request: {error}") from error


async def _taken(conn: Any, run_id: UUID) -> RunReport:
    """Wait until a worker has created the run's row.

    Raises:
        Unreachable: no worker did within 30 s.
    """
    from service.stream.background import until

    if (report := await until(lambda: _look(conn, run_id), _LOOK_EVERY, TAKEN_WITHIN)) is not None:
        return report
    raise Unreachable(
        f"No worker has read the request within {TAKEN_WITHIN:.0f} s. Is a process with the role `reconcile` running "
        "(levelsync serve --roles reconcile,relay)? The request stays in Kafka, and the first worker will read it"
    )


async def _follow(conn: Any, run_id: UUID) -> RunReport:
    """Show the run's progress on stderr until it ends: as a bar on a terminal, else as a line for each phase."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

    from service.stream.background import until

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("ranges{task.fields[more]}"),
    )
    printed: list[object] = []
    with output.progress(*columns) as bar:
        task = bar.add_task("", total=None, more="")

        async def look() -> RunReport | None:
            report = await _look(conn, run_id)
            assert report is not None  # noqa: S101 - only runs that have ended are deleted
            if report.finished_at is not None:
                return report
            progress, counts = report.progress, report.counts
            found = counted(counts["scanned"] - counts["matching"], "pair differs so far", "pairs differ so far")
            bar.update(
                task,
                description=in_words(progress),
                completed=progress.ranges_done,
                total=progress.ranges_total or None,
                more=f"{_rate(progress)}, {found}",
            )
            if bar.disable and progress.phase not in printed[-1:]:
                printed.append(progress.phase)
                output.print_note(f"levelsync: {in_words(progress)}")
            return None

        ended = await until(look, _LOOK_EVERY)
    assert ended is not None  # noqa: S101 - the wait has no bound
    return ended


def in_words(progress: ReportProgress) -> str:
    """Return the phase of a run and, if it is known, how long the phase still takes."""
    phase, left = str(progress.phase or "ended").replace("_", " "), progress.seconds_left
    return phase if left is None else f"{phase}, {_duration(left)} left"


def _rate(progress: ReportProgress) -> str:
    rate = progress.pairs_per_second
    return "" if rate is None or rate < 1 else f", {rate:,.0f} pairs/s"


def _duration(seconds: float) -> str:
    whole = math.ceil(seconds)
    return f"{whole} s" if whole < 2 * 60 else f"{math.ceil(whole / 60)} min"


async def _look(conn: Any, run_id: UUID) -> RunReport | None:
    """Read the report of a run; None if no worker has created the run.

    Raises:
        InstallationFault: no worker can work on it. The text says why.
    """
    from service.levels import read_curriculum

    report = await _read(conn, run_id)
    if report is None or report.finished_at is None:
        await read_curriculum(conn)
        await conn.rollback()
    return report


async def _read(conn: Any, run_id: UUID) -> RunReport | None:
    from service.reconcile.runs import read_run, report_of

    try:
        run = await read_run(conn, run_id)
        return None if run is None else await report_of(conn, run)
    finally:
        await conn.rollback()
