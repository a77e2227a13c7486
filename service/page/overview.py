"""The first glance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from starlette.responses import Response

from service.admin.measured import Partition
from service.admin.overview import Overview, read_overview
from service.admin.verdict import Level, Verdict, judge
from service.page.visit import Visit

REFRESH = 5
"""Seconds after which the overview is fetched again: as often as the gauges are measured."""
QUESTIONS = (
    ("working", "Is it working?", ("Yes.", "Yes, but look at this:", "Not all of it:")),
    ("drift", "Is there drift?", ("No.", "Look at this:", "This needs somebody:")),
    ("stuck", "Is anything stuck?", ("No.", "Only a person can move these:", "Yes:")),
)
LINKS = {
    "health": "#health",
    "runs": "/page/runs",
    "dead_letters": "/page/dead-letters",
    "consumers": "#consumers",
    "outbox": "#outbox",
}


@dataclass(frozen=True, slots=True)
class Drift:
    """Drift as a table: a row a kind, a column a specialization."""

    names: list[str]
    rows: list[tuple[str, list[int]]]


async def overview(visit: Visit) -> Response:
    """Everything that somebody who was woken looks at first."""
    parts = visit.parts
    seen = await read_overview(visit.engine, visit.who, parts.health.by_component(), parts.waits)
    parts.memory.last = seen
    every = parts.settings.reconcile_every
    verdict = judge(seen, every)
    return visit.show(
        "overview.html",
        verdict=verdict,
        headline=_headline(verdict),
        questions=QUESTIONS,
        links=LINKS,
        refresh=REFRESH,
        **values(seen, every),
    )


def values(seen: Overview, every: timedelta) -> dict[str, Any]:
    """Return what the panels below the questions show."""
    return {
        "seen": seen,
        "drift": _drift(seen),
        "consumers": None if seen.partitions is None else _by_topic(seen.partitions),
        "events": _events(seen),
        "every": every.total_seconds(),
    }


def _headline(verdict: Verdict) -> str:
    number = len(verdict.reasons)
    things = "1 thing wants" if number == 1 else f"{number} things want"
    match verdict.level:
        case Level.GOOD:
            return "All is well."
        case Level.LOOK:
            return f"It works; {things} a look."
        case _:
            return f"Something is wrong: {things} a look."


def _drift(seen: Overview) -> Drift:
    found = seen.scan.drift if seen.scan else []
    names = sorted({name for _, name, _ in found})
    numbers = {(kind, name): number for kind, name, number in found}
    kinds = sorted({kind for kind, _, _ in found})
    return Drift(names, [(kind, [numbers.get((kind, name), 0) for name in names]) for kind in kinds])


def _events(seen: Overview) -> list[dict[str, Any]]:
    """Event types with what became of them; an outcome that never was is not listed."""
    outcomes = {kind: sorted((n, c) for n, c in one.items() if c) for kind, one in seen.events.outcomes.items()}
    return [
        {"type": kind, "outcomes": found, "delay": seen.events.delay.get(kind)}
        for kind, found in sorted(outcomes.items())
        if found
    ]


def _by_topic(partitions: Sequence[Partition]) -> list[dict[str, str | int | datetime | None]]:
    return [_topic(topic, partitions) for topic in sorted({one.topic for one in partitions})]


def _topic(topic: str, partitions: Sequence[Partition]) -> dict[str, str | int | datetime | None]:
    own = [one for one in partitions if one.topic == topic]
    moved = max((one.moved_at for one in own if one.moved_at), default=None)
    return {"topic": topic, "lag": sum(one.lag for one in own), "moved_at": moved}
