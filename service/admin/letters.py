"""Dead letters: counting, listing and reading them; `letter_writes` replays and discards them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.admin.audit import check
from service.admin.database import asked
from service.admin.errors import NoSuch
from service.admin.identity import Identity
from service.admin.letter_writes import Handled, discard_letters, replay_letters
from service.dead_letters import MEANINGS, Letter, LetterLine, ReasonCount, count_by_reason, find
from service.dead_letters.read import read_page
from service.dead_letters.select import Selection
from service.dead_letters.verdict import Applicable, Verdict, applicable, judge, judge_by_id
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
