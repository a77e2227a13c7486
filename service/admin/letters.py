"""Dead letters as people ask for, replay and discard them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.admin.audit import Entry, audited, check
from service.admin.database import asked
from service.admin.identity import Identity, NoSuch, Refused
from service.dead_letters import MEANINGS, Letter, LetterLine, ReasonCount, count_by_reason, find
from service.dead_letters.read import read_page
from service.dead_letters.select import Census, Selection, census
from service.dead_letters.verdict import Applicable, Verdict, applicable, judge, judge_by_id
from service.dead_letters.write import Write, discard, replay
from service.settings import Settings

__all__ = [
    "CountedReason",
    "Handled",
    "SeenLetter",
    "SeenLine",
    "SeenPage",
    "Selection",
    "count_letters",
    "discard_letters",
    "find_letter",
    "list_letters",
    "replay_letters",
]

_NOT_JUDGED = Verdict(would_apply=None, why="it is resolved, or too large to be judged in a list")


@dataclass(frozen=True, slots=True)
class CountedReason:
    """The open letters of one reason. `would_apply` is how many of the newest `looked_at` would apply now."""

    reason: str
    meaning: str
    count: int
    oldest: datetime
    newest: datetime
    looked_at: int
    would_apply: int


@dataclass(frozen=True, slots=True)
class SeenLine:
    """A letter in a list, and whether it would apply now."""

    line: LetterLine
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class SeenPage:
    """Some letters, the newest first, and the id before which the next page begins; None where there is none.

    A page of a user's letters may be short and still have a next one: each looks at so many letters only.
    """

    lines: list[SeenLine]
    next: int | None


@dataclass(frozen=True, slots=True)
class SeenLetter:
    """One letter, whole, what its reason means, and whether it would apply now."""

    letter: Letter
    meaning: str
    verdict: Verdict


async def count_letters(engine: AsyncEngine, settings: Settings, who: Identity) -> list[CountedReason]:
    """The open letters by reason, the most first.

    Raises:
        Forbidden, Busy.
    """
    await check(engine, who)
    with asked():
        async with engine.connect() as conn:
            return await read_counts(conn, settings)


async def list_letters(  # noqa: PLR0913 - engine, settings and who, as everywhere here, and the page
    engine: AsyncEngine,
    settings: Settings,
    who: Identity,
    selection: Selection = Selection(),  # noqa: B008 - frozen
    *,
    before: int | None = None,
    limit: int = 100,
) -> SeenPage:
    """A page of letters, the newest first, beginning before an id.

    Raises:
        Forbidden, Busy.
    """
    await check(engine, who)
    with asked():
        async with engine.connect() as conn:
            return await read_lines(conn, settings, selection, before, limit)


async def find_letter(engine: AsyncEngine, settings: Settings, who: Identity, letter_id: int) -> SeenLetter:
    """One letter with its bytes.

    Raises:
        Forbidden, Busy.
        NoSuch: there is none of this id.
    """
    await check(engine, who)
    with asked():
        async with engine.connect() as conn:
            seen = await read_letter(conn, settings, letter_id)
    if seen is None:
        raise NoSuch(f"There is no dead letter {letter_id}.")
    return seen


async def read_counts(conn: AsyncConnection, settings: Settings) -> list[CountedReason]:
    """As `count_letters`, for who works on the database itself."""
    counts = await count_by_reason(conn)
    return [_counted(one, await applicable(conn, one.reason, settings.apply_since)) for one in counts]


async def read_lines(
    conn: AsyncConnection, settings: Settings, selection: Selection, before: int | None, limit: int
) -> SeenPage:
    """As `list_letters`, for who works on the database itself."""
    page = await read_page(conn, selection, before, limit)
    verdicts = await judge_by_id(conn, [line.id for line in page.letters], settings.apply_since)
    return SeenPage([SeenLine(line, verdicts.get(line.id, _NOT_JUDGED)) for line in page.letters], page.next)


async def read_letter(conn: AsyncConnection, settings: Settings, letter_id: int) -> SeenLetter | None:
    """As `find_letter`, for who works on the database itself; None where there is none of this id."""
    letter = await find(conn, letter_id)
    if letter is None:
        return None
    (verdict,) = await judge(conn, [letter], settings.apply_since)
    return SeenLetter(letter, MEANINGS.get(letter.reason, letter.reason), verdict)


def _counted(one: ReasonCount, looked: Applicable) -> CountedReason:
    meaning = MEANINGS.get(one.reason, one.reason)
    return CountedReason(one.reason, meaning, one.count, one.oldest, one.newest, looked.looked_at, looked.would_apply)


MOST = 10_000
"""Letters that one call replays or discards; it says how many are left."""
Verb = Literal["replay", "discard"]
_Do = Callable[[AsyncEngine, Selection, str, Write, int], AsyncIterator[list[int]]]
_DO: dict[Verb, _Do] = {"replay": replay, "discard": discard}


@dataclass(frozen=True, slots=True)
class Handled:
    """What a replay or a discard did, or in a dry run would do."""

    dry_run: bool
    selected: int
    """Letters that were, or would be, replayed or discarded."""
    on_its_way: int
    """Left out: replayed within the last minute, and not come back yet."""
    unsendable: int
    """Left out of a replay: Kafka would not take them."""
    not_open: int
    """Ids of no open letter."""
    left: int
    """What a call more would do: one handles 10,000 at most."""


async def replay_letters(engine: AsyncEngine, who: Identity, selection: Selection, *, dry_run: bool = True) -> Handled:
    """Send open letters again, each once, whoever else asks for the same.

    Raises:
        Forbidden, Busy: what was sent in earlier transactions stays sent.
        Refused: the selection is not of open letters.
    """
    return await _handle(engine, who, "replay", selection, dry_run=dry_run)


async def discard_letters(engine: AsyncEngine, who: Identity, selection: Selection, *, dry_run: bool = True) -> Handled:
    """Close open letters without applying them; they stay to be read.

    Raises:
        As `replay_letters`.
    """
    return await _handle(engine, who, "discard", selection, dry_run=dry_run)


async def _handle(engine: AsyncEngine, who: Identity, verb: Verb, selection: Selection, *, dry_run: bool) -> Handled:
    action: Literal["replay_letters", "discard_letters"] = "replay_letters" if verb == "replay" else "discard_letters"
    if selection.state != "open":
        raise Refused("Only open letters can be replayed or discarded.")
    if dry_run:
        await check(engine, who, action)
        with asked():
            async with engine.connect() as conn:
                return await would(conn, verb, selection)
    async with audited(engine, who, action, **_arguments(selection)) as entry:
        async with engine.connect() as conn:
            found = await would(conn, verb, selection)
        batches = [len(ids) async for ids in _DO[verb](engine, selection, who.subject, _row_of(entry), MOST)]
        return replace(found, dry_run=False, selected=sum(batches))


async def would(conn: AsyncConnection, verb: Verb, selection: Selection) -> Handled:
    """What a dry run says."""
    found = await census(conn, selection)
    ready = _ready(found, verb)
    not_open = len(set(selection.ids)) - found.open if selection.ids is not None else 0
    unsendable = found.unsendable if verb == "replay" else 0
    return Handled(
        dry_run=True,
        selected=min(ready, MOST),
        on_its_way=found.on_its_way,
        unsendable=unsendable,
        not_open=not_open,
        left=max(ready - MOST, 0),
    )


def _ready(found: Census, verb: Verb) -> int:
    ready = found.open - found.on_its_way
    return ready - found.unsendable if verb == "replay" else ready


def _row_of(entry: Entry) -> Write:
    async def store(conn: AsyncConnection, ids: list[int]) -> None:
        await entry.done(conn, f"{len(ids)} letters: {ids[0]} to {ids[-1]}" if len(ids) > 1 else f"letter {ids[0]}")

    return store


def _arguments(selection: Selection) -> dict[str, Any]:
    given = {name: getattr(selection, name) for name in ("ids", "reason", "topic", "since", "until", "user_id")}
    return {name: value for name, value in given.items() if value is not None}
