"""A second session's changes during a batch, in the database and in the model.

The batch always raises user 1 from 3 to 5 and user 2 from 1 to 2, and creates user 3's license at 2. The second session
changes one of them. The tables must end as if one of the two came wholly before the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations, count
from operator import itemgetter
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support import tables
from tests.support.applier import Events, NotApplied, rise, sync
from tests.support.links import Way
from tests.support.model import Meant, Model, Pair
from tests.support.records import MAXIMUM
from tests.support.tables import add_rows, empty_tables, execute, waiting

ONE, TWO, THREE = (1, "PLAYER"), (2, "PLAYER"), (3, "PLAYER")
BATCH = (rise(1, 5), rise(2, 2), rise(3, 2))
Mean = Callable[[Model], None]
"""A change of the model."""
Levels = frozenset[tuple[Pair, int]]
State = tuple[Levels, Levels, tuple[tuple[Pair, int, int], ...], tuple[str, ...], frozenset[Pair]]
"""Licenses, progress, history by pair, reasons of dead letters, fenced pairs; names in capitals."""
_RESET = (
    "INSERT INTO users (id, name, email) VALUES (3, 'Three', 'three@example.org') ON CONFLICT DO NOTHING",
    "UPDATE specializations SET max_levels = 8 WHERE id = 'PLAYER'",
)


@dataclass(frozen=True)
class Interference:
    """One change: what the second session does, and the same in the model. A refused change has no effect."""

    name: str
    do: Callable[[AsyncEngine], Awaitable[Any]]
    mean: Mean
    evicts: bool = False
    """Whether the batch, or its rest, is given up when this comes first."""


def sql(*statements: str) -> Callable[[AsyncEngine], Awaitable[None]]:
    return lambda engine: execute(engine, *statements)


def _lower(model: Model) -> None:
    before, after = model.licenses[ONE], model.progress[ONE]
    model.licenses[ONE] = after
    model.history.append((ONE, before, after, datetime.now(UTC), "sync"))
    model.fences[ONE] = datetime.now(UTC)


def _rename(model: Model) -> None:
    coach = (1, "COACH")
    model.licenses[coach] = model.licenses.pop(ONE)
    model.history = [(coach if row[0] == ONE else row[0], *row[1:]) for row in model.history]


def _delete_license(model: Model) -> None:
    del model.licenses[ONE]
    model.history = [row for row in model.history if row[0] != ONE]


def _delete_user(model: Model) -> None:
    if THREE not in model.licenses:
        model.users.discard(3)


INTERFERENCES = (
    Interference("lower_with_a_fence", lambda engine: sync(engine, 1, "progress_to_license"), _lower),
    Interference(
        "insert_the_license",
        sql("INSERT INTO user_licenses (user_id, specialization_type, started_at) VALUES (3, 'PLAYER', now())"),
        lambda model: None if THREE in model.licenses else model.licenses.update({THREE: 1}),
    ),
    Interference(
        "rename_the_license",
        sql("UPDATE user_licenses SET specialization_type = 'COACH' WHERE user_id = 1"),
        _rename,
    ),
    Interference(
        "rename_the_license_in_its_case",
        sql("UPDATE user_licenses SET specialization_type = 'Player' WHERE user_id = 1"),
        lambda _: None,
    ),
    Interference(
        "delete_the_license",
        sql(
            "SELECT FROM user_licenses WHERE user_id = 1 FOR UPDATE",
            """DELETE FROM license_progressions h USING user_licenses l
                WHERE l.id = h.user_license_id AND l.user_id = 1""",
            "DELETE FROM user_licenses WHERE user_id = 1",
        ),
        _delete_license,
    ),
    Interference("delete_the_user", sql("DELETE FROM users WHERE id = 3"), _delete_user),
    Interference(
        "lower_the_maximum",
        sql("UPDATE specializations SET max_levels = 4 WHERE id = 'PLAYER'"),
        lambda model: model.maximum.update(PLAYER=4),
    ),
    Interference(
        "move_the_position",
        sql("UPDATE levelsync.applied_offsets SET next_offset = 100 WHERE topic = 'progress.leveled-up'"),
        lambda _: None,
        evicts=True,
    ),
)


@dataclass
class Setup:
    """Two sessions: `batch` is the engine of the path that is interrupted, `other` the second session's."""

    batch: AsyncEngine
    other: AsyncEngine
    link: Way
    """The link of `batch` to PostgreSQL, which can stop before each round trip."""

    async def interrupt(
        self, change: Interference, begin: Callable[[], Awaitable[Awaitable[Any]]], allowed: set[State]
    ) -> None:
        """Stop a path before each of its round trips in turn, and run the second session's change there."""
        for trip in count(1):
            work = await begin()
            self.link.stop_before(trip)
            path = asyncio.ensure_future(work)
            stop = asyncio.create_task(self.link.stopped.wait())
            await asyncio.wait({path, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not stop.done():  # the path has fewer statements
                stop.cancel()
                self.link.stop_before(0)
                assert trip > 1
                return
            made = await self.interfere(change)
            self.link.go_on()
            await asyncio.gather(path, made)
            assert await self.state() in allowed, f"stopped before round trip {trip}"

    async def reset(self) -> Events:
        """Restore the first state; returns a consumer that applies batches with the engine `batch`."""
        await empty_tables(self.other)
        await execute(self.other, *_RESET)
        await add_rows(self.other, progress={ONE: 2}, licenses={ONE: 3, TWO: 1})
        return await Events(self.other, through=self.batch).begin()

    async def interfere(self, interference: Interference, others: int = 0) -> asyncio.Task[None]:
        """Start the second session's change; returns when it is made, or waits as well as `others`."""
        task = asyncio.create_task(_do(interference, self.other))
        while not task.done() and await waiting(self.other) <= others:
            await asyncio.sleep(0.005)
        return task

    async def state(self) -> State:
        licenses, progress = await tables.licenses(self.other), await tables.progress(self.other)
        history = await tables.steps(self.other)
        steps = [((user, name.upper()), before, after) for user, name, before, after in history]
        letters = await tables.read(self.other, "SELECT reason FROM levelsync.dead_letters ORDER BY 1")
        fences = await tables.read(self.other, "SELECT user_id, upper(specialization) FROM levelsync.fences")
        return (
            frozenset(((user, name.upper()), level) for (user, name), level in licenses.items()),
            frozenset(progress.items()),
            tuple(sorted(steps, key=itemgetter(0))),
            tuple(row[0] for row in letters),
            frozenset((row[0], row[1]) for row in fences),
        )


def ends(interference: Interference) -> set[State]:
    """Return the states in which the tables may end after the batch and a change."""
    if interference.evicts:
        some = (events for size in range(len(BATCH) + 1) for events in combinations(BATCH, size))
        return {_after(_meaning(events), interference.mean) for events in some}
    return both_orders(_meaning(BATCH), interference.mean)


def both_orders(one: Mean, other: Mean) -> set[State]:
    """Return the states in which two changes end, in either order."""
    return {_after(one, other), _after(other, one)}


def _meaning(events: tuple[Meant, ...]) -> Mean:
    def mean(model: Model) -> None:
        for event in events:
            model.apply(event)

    return mean


def _after(*changes: Mean) -> State:
    model = Model(dict(MAXIMUM), set(range(1, 201)), {ONE: 3, TWO: 1}, {ONE: 2})
    for change in changes:
        change(model)
    return _as_state(model)


def _as_state(model: Model) -> State:
    steps = [row[:3] for row in model.history]
    return (
        frozenset(model.licenses.items()),
        frozenset(model.progress.items()),
        tuple(sorted(steps, key=itemgetter(0))),
        tuple(sorted(model.letters.values())),
        frozenset(model.fences),
    )


async def apply(events: Events) -> None:
    """Apply the batch. Where it is given up, the tables show what was applied."""
    with suppress(NotApplied):
        await events.apply(*BATCH)


async def _do(interference: Interference, engine: AsyncEngine) -> None:
    with suppress(IntegrityError):  # the row exists, or another row refers to it, so this change came second
        await interference.do(engine)
