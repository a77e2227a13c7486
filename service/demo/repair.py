"""The demo's steps about drift: damaged rows, a dry run, the heal, and a dry run that finds nothing."""

from __future__ import annotations

from typing import Any

from events import ReconcileRequested
from service.cli.reconcile import ask, show_report
from service.cli.runs import issues_of, show_issues
from service.demo import queries
from service.demo.queries import DAMAGED, Pair
from service.demo.scene import Stage

_KINDS = ("mismatched", "missing_license", "missing_progress", "needs_decision", "unconfirmed")


async def show_repair(stage: Stage) -> bool:
    """Damage some pairs, find them, heal them; say whether exactly those were found, and none are left.

    Raises:
        Unreachable: nobody took a request for a run.
    """
    await _show_damage(stage)
    exact = await _show_dry_run(stage)
    healed = await _show_heal(stage)
    return await _show_nothing_left(stage) and exact and healed


async def _show_damage(stage: Stage) -> None:
    screen = stage.screen
    screen.step("Somebody edits the tables behind everybody's back")
    screen.say("Two licenses lowered, one removed, one row of progress raised. There is no event to tell of it.")
    async with stage.engine.connect() as conn:
        await queries.damage(conn)
    screen.pairs("Damaged", await _damaged(stage))


async def _show_dry_run(stage: Stage) -> bool:
    """Ask as `levelsync reconcile` does, through Kafka."""
    stage.screen.step("A dry run finds exactly those")
    report, found = await _run(stage, execute=False)
    show_report(report)
    show_issues(found, as_json=False)
    return {(issue["user_id"], issue["specialization"]) for issue in found} == set(DAMAGED)


async def _show_heal(stage: Stage) -> bool:
    screen = stage.screen
    screen.step("The same for real")
    async with stage.engine.connect() as conn:
        last_row = await queries.last_history_id(conn)
    report, _ = await _run(stage, execute=True)
    show_report(report)
    async with stage.engine.connect() as conn:
        history = await queries.history_after(conn, last_row)
    screen.pairs("Healed: progress was believed", pairs := await _damaged(stage))
    screen.say("Every heal of a license left one row of history, with the run's id:")
    screen.history(history)
    return report["counts"]["healed"] == len(DAMAGED) and all(pair.agrees for pair in pairs)


async def _show_nothing_left(stage: Stage) -> bool:
    stage.screen.step("A second dry run finds nothing")
    report, _ = await _run(stage, execute=False)
    show_report(report)
    return report["status"] == "completed" and not any(report["counts"][kind] for kind in _KINDS)


async def _run(stage: Stage, *, execute: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ask for a run and wait for its end: its report, and its issues."""
    request = ReconcileRequested(direction="progress_to_license", dry_run=not execute, requested_by="levelsync demo")
    report = await ask(stage.settings, request, wait=True)
    return report, await issues_of(stage.settings, report["run_id"])


async def _damaged(stage: Stage) -> list[Pair]:
    async with stage.engine.connect() as conn:
        pairs = await queries.all_pairs(conn)
    return [pairs[key] for key in DAMAGED]
