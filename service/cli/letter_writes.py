"""The commands that replay and discard dead letters, and the options that select them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import context, output
from service.cli.context import AsJson, confirm, record, user_name
from service.cli.exits import Exit, WrongUse
from service.core.names import LETTER_STATES, counted

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from service.admin.letters import Handled, Verb
    from service.dead_letters.select import Selection
    from service.dead_letters.write import Write
    from service.settings import Settings

TIME = "a time such as 2026-11-23T09:00 (UTC, unless it has a zone), or an age such as 2h or 3d"


def _reasons(incomplete: str) -> list[str]:
    from service.dead_letters import MEANINGS

    return context.complete(MEANINGS)(incomplete)


def _topics(incomplete: str) -> list[str]:
    from events import topics

    names = [topics.PROGRESS_LEVELED_UP_TOPIC, topics.LICENSE_ADVANCED_TOPIC]
    return context.complete([*names, topics.RECONCILE_REQUESTED_TOPIC, topics.RECONCILE_CHUNKS_TOPIC])(incomplete)


Reason = Annotated[str | None, typer.Option(help="Only letters of this reason.", autocompletion=_reasons)]
Topic = Annotated[str | None, typer.Option(help="Only letters of this topic.", autocompletion=_topics)]
Since = Annotated[str | None, typer.Option(help=f"Only letters first seen since {TIME}.")]
Until = Annotated[str | None, typer.Option(help="Only letters first seen before this time, written in the same way.")]
User = Annotated[int | None, typer.Option(help="Only letters of this user: in the key, or as user_id in the JSON.")]


def selection(state: str = "open", ids: list[int] | None = None, **narrowed: Any) -> Selection:
    """Return the selection that the options mean.

    Raises:
        WrongUse: there is no such reason or state, or a time cannot be read.
    """
    from service.dead_letters import MEANINGS
    from service.dead_letters.select import Selection

    reason = narrowed.get("reason")
    if reason is not None and reason not in MEANINGS:
        raise WrongUse(f"there is no reason {reason}; the reasons are {', '.join(MEANINGS)}")
    if state not in LETTER_STATES:
        raise WrongUse(f"there is no state {state}; the states are {', '.join(LETTER_STATES)}")
    for name in ("since", "until"):
        narrowed[name] = moment(name, narrowed.get(name))
    return Selection(ids=tuple(ids) if ids else None, state=state, **narrowed)


def moment(name: str, given: str | None) -> datetime | None:
    """Read the time of an option.

    Raises:
        WrongUse: it is neither a time nor an age.
    """
    from service.settings import parse_duration

    if given is None:
        return None
    try:
        read = datetime.fromisoformat(given)
    except ValueError:
        try:
            ago = parse_duration(given)
        except ValueError:
            raise WrongUse(f"--{name} {given}: give {TIME}") from None
        assert isinstance(ago, timedelta)  # noqa: S101 - parse_duration returns one for text
        return datetime.now(UTC) - ago
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read


REPLAY_TIMEOUT = 30.0
"""Seconds to wait for the next letter to be applied or to fail again."""
_LOOK_EVERY = 0.2
_FOLLOWED_AT_ONCE = 10_000


async def collect(batches: AsyncIterator[list[int]], total: int, word: str) -> list[int]:
    """Return the ids of all batches; show a progress bar on stderr."""
    ids: list[int] = []
    with _bar() as bar:
        task = bar.add_task(word, total=total)
        async for batch in batches:
            ids += batch
            bar.update(task, completed=len(ids))
    return ids


async def follow(conn: AsyncConnection, ids: list[int]) -> dict[str, int]:
    """Wait until every letter was applied or failed again, or until 30 s pass without a further one."""
    pending, closed, failed = ids, 0, 0
    last = time.monotonic()
    with _bar() as bar:
        task = bar.add_task("applying", total=len(ids))
        while pending and time.monotonic() - last < REPLAY_TIMEOUT:
            was = len(pending)
            pending, newly_closed, newly_failed = await _look(conn, pending)
            closed, failed = closed + newly_closed, failed + newly_failed
            if len(pending) < was:
                last = time.monotonic()
            bar.update(task, completed=len(ids) - len(pending))
            if pending:
                await asyncio.sleep(_LOOK_EVERY)
    return {"closed": closed, "failed": failed, "pending": len(pending)}


async def _look(conn: AsyncConnection, pending: list[int]) -> tuple[list[int], int, int]:
    from service.dead_letters.write import follow as look

    found = await look(conn, pending[:_FOLLOWED_AT_ONCE])
    await conn.rollback()
    return pending[_FOLLOWED_AT_ONCE:] + found.pending, len(found.closed), len(found.failed)


def _bar() -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

    return output.progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())


Ids = Annotated[list[int] | None, typer.Argument(metavar="[ID]...", help="Letters by id.")]
All = Annotated[bool, typer.Option("--all", help="Every open letter.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print how many, and do nothing.")]


def replay(
    ids: Ids = None,
    reason: Reason = None,
    topic: Topic = None,
    since: Since = None,
    until: Until = None,
    user: User = None,
    everything: All = False,
    dry_run: DryRun = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until they are applied or fail again.")] = True,
    as_json: AsJson = False,
) -> None:
    """Send open dead letters to their topics again. Exit 1 if some failed again, 3 if no process read them."""
    wanted = _selected(ids, everything, reason=reason, topic=topic, since=since, until=until, user_id=user)
    report = asyncio.run(_replay(context.settings(), wanted, dry_run=dry_run, wait=wait))
    if as_json:
        output.print_json(report)
    elif "closed" in report:
        output.print_line(f"Applied {report['closed']}, failed again {report['failed']}, not yet {report['pending']}")
        if report["failed"]:
            output.print_note("To see why: levelsync dead-letters show ID, or list with --reason")
    if report.get("pending") and not (report["closed"] or report["failed"]):
        output.print_error(
            f"No process read them within {REPLAY_TIMEOUT:.0f} s. Is a process with the roles `relay` and `apply` "
            "running (levelsync serve)? They stay in the outbox or in Kafka, and the first such process will read them"
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
    """Close open dead letters without applying them. They can be read until their retention ends."""
    wanted = _selected(ids, everything, reason=reason, topic=topic, since=since, until=until, user_id=user)
    report = asyncio.run(_discard(context.settings(), wanted, dry_run=dry_run, yes=yes))
    if as_json:
        output.print_json(report)
    elif not dry_run:
        output.print_line(f"Discarded {counted(report['selected'], 'letter')}")


def _selected(ids: list[int] | None, everything: bool, **narrowed: Any) -> Selection:
    wanted = selection("open", ids, **narrowed)
    if everything == (not wanted.everything):
        raise WrongUse("select letters by id, or by --reason, --topic, --since, --until or --user, or with --all")
    return wanted


async def _replay(settings: Settings, wanted: Selection, *, dry_run: bool, wait: bool) -> dict[str, Any]:
    from service.cli import reach
    from service.dead_letters.write import replay as send

    async with reach.database(settings) as conn:
        would = await _announce(conn, "replay", wanted)
        if dry_run or not would.selected:
            return _document(would, dry_run, would.selected)
        sent = await collect(
            send(conn.engine, wanted, user_name(), _row_of("replay_letters")), would.selected + would.left, "sending"
        )
        report = _document(would, dry_run, len(sent))
        return report | await follow(conn, sent) if wait else report


async def _discard(settings: Settings, wanted: Selection, *, dry_run: bool, yes: bool) -> dict[str, Any]:
    from service.cli import reach
    from service.dead_letters.write import discard as close

    async with reach.database(settings) as conn:
        would = await _announce(conn, "discard", wanted)
        number = would.selected + would.left
        if dry_run or not number:
            return _document(would, dry_run, number)
        if number > 1 or wanted.everything:
            confirm(f"Discard {counted(number, 'dead letter')}?", yes=yes)
        closed = await collect(
            close(conn.engine, wanted, user_name(), _row_of("discard_letters")), number, "discarding"
        )
        return _document(would, dry_run, len(closed))


async def _announce(conn: AsyncConnection, verb: Verb, wanted: Selection) -> Handled:
    """Print how many letters the command will handle, and how many it will not."""
    from service.admin.letters import preview

    await _check_ids(conn, wanted.ids)
    found = await preview(conn, verb, wanted)
    await conn.rollback()
    done = {"replay": "sent again", "discard": "discarded"}[verb]
    number = found.selected + found.left
    output.print_note(f"{counted(number, 'open dead letter')} to be {done}")
    left_out = {
        "sent less than a minute ago": found.on_its_way,
        "cannot be sent, because they are too large for Kafka or have neither key nor value": found.unsendable,
        "not open": found.not_open,
    }
    for words, number in left_out.items():
        if number:
            output.print_note(f"  left out, {words}: {number:,}")
    return found


async def _check_ids(conn: AsyncConnection, ids: Sequence[int] | None) -> None:
    """Check that every id is a letter's.

    Raises:
        WrongUse: some are not. The text names them, and nothing is done with the others.
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
        from service.dead_letters.write import letters_in_words

        await record(conn, action, letters_in_words(ids))

    return store
