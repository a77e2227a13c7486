"""`levelsync dead-letters replay` and `discard`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import context, output
from service.cli.asking import confirm
from service.cli.audited import me, record
from service.cli.context import AsJson
from service.cli.exits import Exit, WrongUse
from service.cli.letter_options import Reason, Since, Topic, Until, User, selection
from service.cli.letter_progress import PATIENCE, collect, follow

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from service.admin.letter_writes import Handled, Verb
    from service.dead_letters.batches import Write
    from service.dead_letters.select import Selection
    from service.settings import Settings

Ids = Annotated[list[int] | None, typer.Argument(metavar="[ID]...", help="Letters by id.")]
All = Annotated[bool, typer.Option("--all", help="Every open letter.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say how many, and do nothing.")]


def replay(
    ids: Ids = None,
    reason: Reason = None,
    topic: Topic = None,
    since: Since = None,
    until: Until = None,
    user: User = None,
    everything: All = False,
    dry_run: DryRun = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until they have applied or failed.")] = True,
    as_json: AsJson = False,
) -> None:
    """Send open dead letters to their topics again. Exit 1 when some failed again, 3 when nothing took them."""
    wanted = _meant(ids, everything, reason=reason, topic=topic, since=since, until=until, user_id=user)
    report = asyncio.run(_replay(context.settings(), wanted, dry_run=dry_run, wait=wait))
    if as_json:
        output.print_json(report)
    elif "closed" in report:
        output.say(f"Applied {report['closed']}, failed again {report['failed']}, not yet {report['pending']}")
        if report["failed"]:
            output.remark("Why: levelsync dead-letters show ID, or list with --reason")
    if report.get("pending") and not (report["closed"] or report["failed"]):
        output.complain(
            f"Nothing took them within {PATIENCE:.0f} s: is a process with the roles `relay` and `apply` running "
            "(levelsync serve)? They stay on their way and will be taken by the first one"
        )
        raise typer.Exit(Exit.UNREACHABLE)
    if report.get("failed") or report.get("pending"):
        raise typer.Exit(Exit.NO)


def discard(
    ids: Ids = None,
    reason: Reason = None,
    topic: Topic = None,
    since: Since = None,
    until: Until = None,
    user: User = None,
    everything: All = False,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Close open dead letters without applying them; they can be read until their retention ends."""
    wanted = _meant(ids, everything, reason=reason, topic=topic, since=since, until=until, user_id=user)
    report = asyncio.run(_discard(context.settings(), wanted, dry_run=dry_run, yes=yes))
    if as_json:
        output.print_json(report)
    elif not dry_run:
        output.say(f"Discarded {report['selected']}")


def _meant(ids: list[int] | None, everything: bool, **narrowed: Any) -> Selection:
    wanted = selection("open", ids, **narrowed)
    if everything == (not wanted.everything):
        raise WrongUse("give letters by id, or by --reason, --topic, --since, --until or --user, or --all")
    return wanted


async def _replay(settings: Settings, wanted: Selection, *, dry_run: bool, wait: bool) -> dict[str, Any]:
    from service.cli import reach
    from service.dead_letters.replay import replay as send

    async with reach.database(settings) as conn:
        would = await _announce(conn, "replay", wanted)
        if dry_run or not would.selected:
            return _document(would, dry_run, would.selected)
        sent = await collect(
            send(conn.engine, wanted, me(), _row_of("replay_letters")), would.selected + would.left, "sending"
        )
        report = _document(would, dry_run, len(sent))
        return report | await follow(conn, sent) if wait else report


async def _discard(settings: Settings, wanted: Selection, *, dry_run: bool, yes: bool) -> dict[str, Any]:
    from service.cli import reach
    from service.dead_letters.discard import discard as close

    async with reach.database(settings) as conn:
        would = await _announce(conn, "discard", wanted)
        number = would.selected + would.left
        if dry_run or not number:
            return _document(would, dry_run, number)
        if number > 1 or wanted.everything:
            confirm(f"Discard {number} dead {'letter' if number == 1 else 'letters'}?", yes=yes)
        closed = await collect(close(conn.engine, wanted, me(), _row_of("discard_letters")), number, "discarding")
        return _document(would, dry_run, len(closed))


async def _announce(conn: AsyncConnection, verb: Verb, wanted: Selection) -> Handled:
    """Say first how many."""
    from service.admin.letter_writes import would

    await _check_ids(conn, wanted.ids)
    found = await would(conn, verb, wanted)
    await conn.rollback()
    done = {"replay": "sent again", "discard": "discarded"}[verb]
    number = found.selected + found.left
    output.remark(f"{number} open dead {'letter' if number == 1 else 'letters'} to be {done}")
    left_out = {
        "are already on their way: sent within the last minute": found.on_its_way,
        "cannot be sent: too large for Kafka, or without both key and value": found.unsendable,
        "of the ids are of no open letter": found.not_open,
    }
    for words, number in left_out.items():
        if number:
            output.remark(f"  {number} {words}")
    return found


async def _check_ids(conn: AsyncConnection, ids: Sequence[int] | None) -> None:
    """Check that every letter that is named was ever there.

    Raises:
        WrongUse: naming those that were not; nothing is done with the others.
    """
    from sqlalchemy import text

    if ids:
        query = text("SELECT id FROM levelsync.dead_letters WHERE id = ANY(CAST(:ids AS bigint[]))")
        there = set((await conn.execute(query, {"ids": list(ids)})).scalars())
        if missing := [str(one) for one in ids if one not in there]:
            raise WrongUse(f"there is no dead letter {', '.join(missing)}: levelsync dead-letters list --state all")


def _document(would: Handled, dry_run: bool, selected: int) -> dict[str, Any]:
    left_out = {"on_its_way": would.on_its_way, "unsendable": would.unsendable, "not_open": would.not_open}
    return {"dry_run": dry_run, "selected": selected} | left_out


def _row_of(action: str) -> Write:
    async def store(conn: AsyncConnection, ids: list[int]) -> None:
        await record(conn, action, f"{len(ids)} letters: {ids[0]} to {ids[-1]}" if len(ids) > 1 else f"letter {ids[0]}")

    return store
