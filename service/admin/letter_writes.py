"""Replaying and discarding dead letters, with their rows in the audit log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.admin.audit import Entry, audited, check
from service.admin.database import asked
from service.admin.errors import Refused
from service.admin.identity import Identity
from service.dead_letters.batches import Write
from service.dead_letters.discard import discard
from service.dead_letters.replay import replay
from service.dead_letters.select import Census, Selection, census

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
