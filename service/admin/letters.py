"""Read, replay and discard dead letters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.admin.audit import Entry, audited, check
from service.admin.database import busy_if_unavailable
from service.admin.identity import Identity, NoSuch, Refused
from service.dead_letters import MEANINGS, Letter, LetterLine, ReasonCount, count_by_reason, find
from service.dead_letters.read import read_page
from service.dead_letters.select import Selection, SelectionCounts, count_selection
from service.dead_letters.verdict import Applicable, ReplayVerdict, applicable, judge, judge_by_id
from service.dead_letters.write import Write, discard, letters_in_words, replay
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

_NOT_JUDGED = ReplayVerdict(would_apply=None, why="it is resolved, or too large to be checked in a list")


@dataclass(frozen=True, slots=True)
class CountedReason:
    """The number of open letters of one reason. Of the newest `looked_at`, `would_apply` would apply now."""

    reason: str
    meaning: str
    count: int
    oldest: datetime
    newest: datetime
    looked_at: int
    would_apply: int


@dataclass(frozen=True, slots=True)
class SeenLine:
    """One letter of a list, and whether it would apply now."""

    line: LetterLine
    verdict: ReplayVerdict

    def as_dict(self) -> dict[str, Any]:
        """Return the letter as JSON and CSV have it (`LETTER_COLUMNS`)."""
        return asdict(self.line) | self.verdict.as_dict()


@dataclass(frozen=True, slots=True)
class SeenPage:
    """A page of letters, the newest first, and the id before which the next page begins; None on the last page.

    A page of one user's letters may be short and not be the last one, because each page searches a limited number of
    letters.
    """

    lines: list[SeenLine]
    next: int | None


@dataclass(frozen=True, slots=True)
class SeenLetter:
    """One letter with its record, the meaning of its reason, and whether it would apply now."""

    letter: Letter
    meaning: str
    verdict: ReplayVerdict


async def count_letters(engine: AsyncEngine, settings: Settings, who: Identity) -> list[CountedReason]:
    """Count the open letters of each reason, the most frequent reason first.

    Raises:
        Forbidden, Busy.
    """
    await check(engine, who)
    with busy_if_unavailable():
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
    """Return a page of letters, the newest first, beginning before the id `before`.

    Raises:
        Forbidden, Busy.
    """
    await check(engine, who)
    with busy_if_unavailable():
        async with engine.connect() as conn:
            return await read_lines(conn, settings, selection, before, limit)


async def find_letter(engine: AsyncEngine, settings: Settings, who: Identity, letter_id: int) -> SeenLetter:
    """Return one letter with its record.

    Raises:
        Forbidden, Busy.
        NoSuch: there is no letter with this id.
    """
    await check(engine, who)
    with busy_if_unavailable():
        async with engine.connect() as conn:
            seen = await read_letter(conn, settings, letter_id)
    if seen is None:
        raise NoSuch(f"There is no dead letter {letter_id}.")
    return seen


async def read_counts(conn: AsyncConnection, settings: Settings) -> list[CountedReason]:
    """Do what `count_letters` does, without a check of rights, for the command line."""
    counts = await count_by_reason(conn)
    return [_counted(one, await applicable(conn, one.reason, settings.apply_since)) for one in counts]


async def read_lines(
    conn: AsyncConnection, settings: Settings, selection: Selection, before: int | None, limit: int
) -> SeenPage:
    """Do what `list_letters` does, without a check of rights, for the command line."""
    page = await read_page(conn, selection, before, limit)
    verdicts = await judge_by_id(conn, [line.id for line in page.letters], settings.apply_since)
    return SeenPage([SeenLine(line, verdicts.get(line.id, _NOT_JUDGED)) for line in page.letters], page.next)


async def read_letter(conn: AsyncConnection, settings: Settings, letter_id: int) -> SeenLetter | None:
    """Do what `find_letter` does, without a check of rights; return None where there is no letter with this id."""
    letter = await find(conn, letter_id)
    if letter is None:
        return None
    (verdict,) = await judge(conn, [letter], settings.apply_since)
    return SeenLetter(letter, MEANINGS.get(letter.reason, letter.reason), verdict)


def _counted(one: ReasonCount, looked: Applicable) -> CountedReason:
    meaning = MEANINGS.get(one.reason, one.reason)
    return CountedReason(one.reason, meaning, one.count, one.oldest, one.newest, looked.looked_at, looked.would_apply)


MAX_LETTERS = 10_000
"""The maximum number of letters that one call replays or discards. `Handled.left` counts the others."""
Verb = Literal["replay", "discard"]
_Do = Callable[[AsyncEngine, Selection, str, Write, int], AsyncIterator[list[int]]]
_DO: dict[Verb, _Do] = {"replay": replay, "discard": discard}


@dataclass(frozen=True, slots=True)
class Handled:
    """The result of a replay or a discard, or of its dry run."""

    dry_run: bool
    selected: int
    """Letters that were replayed or discarded, or would be."""
    on_its_way: int
    """Skipped: replayed less than a minute ago, with no outcome yet."""
    unsendable: int
    """Skipped by a replay: Kafka would refuse them."""
    not_open: int
    """Ids for which there is no open letter."""
    left: int
    """Letters that remain for the next call, because one call handles at most 10,000."""


async def replay_letters(engine: AsyncEngine, who: Identity, selection: Selection, *, dry_run: bool = True) -> Handled:
    """Send the records of open letters to their topics again. Concurrent calls send each letter once.

    Raises:
        Forbidden.
        Busy: the database cannot answer. Letters of transactions that committed before are sent.
        Refused: the selection is not of open letters.
    """
    return await _handle(engine, who, "replay", selection, dry_run=dry_run)


async def discard_letters(engine: AsyncEngine, who: Identity, selection: Selection, *, dry_run: bool = True) -> Handled:
    """Close open letters without applying them. They can still be read.

    Raises:
        Forbidden, Busy, Refused: as `replay_letters`.
    """
    return await _handle(engine, who, "discard", selection, dry_run=dry_run)


async def _handle(engine: AsyncEngine, who: Identity, verb: Verb, selection: Selection, *, dry_run: bool) -> Handled:
    action: Literal["replay_letters", "discard_letters"] = "replay_letters" if verb == "replay" else "discard_letters"
    if selection.state != "open":
        raise Refused("Only open letters can be replayed or discarded.")
    if dry_run:
        await check(engine, who, action)
        with busy_if_unavailable():
            async with engine.connect() as conn:
                return await preview(conn, verb, selection)
    async with audited(engine, who, action, **_arguments(selection)) as entry:
        async with engine.connect() as conn:
            found = await preview(conn, verb, selection)
        batches = [len(ids) async for ids in _DO[verb](engine, selection, who.subject, _row_of(entry), MAX_LETTERS)]
        return replace(found, dry_run=False, selected=sum(batches))


async def preview(conn: AsyncConnection, verb: Verb, selection: Selection) -> Handled:
    """Return the result of a dry run."""
    found = await count_selection(conn, selection)
    ready = _ready(found, verb)
    not_open = len(set(selection.ids)) - found.open if selection.ids is not None else 0
    unsendable = found.unsendable if verb == "replay" else 0
    return Handled(
        dry_run=True,
        selected=min(ready, MAX_LETTERS),
        on_its_way=found.on_its_way,
        unsendable=unsendable,
        not_open=not_open,
        left=max(ready - MAX_LETTERS, 0),
    )


def _ready(found: SelectionCounts, verb: Verb) -> int:
    ready = found.open - found.on_its_way
    return ready - found.unsendable if verb == "replay" else ready


def _row_of(entry: Entry) -> Write:
    async def store(conn: AsyncConnection, ids: list[int]) -> None:
        await entry.done(conn, letters_in_words(ids))

    return store


def _arguments(selection: Selection) -> dict[str, Any]:
    return {name: value for name, value in asdict(selection).items() if value is not None and name != "state"}
