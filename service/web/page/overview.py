"""The overview, and the page that replaces it while PostgreSQL does not answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from service.admin.identity import Busy, NotSignedIn, allow
from service.admin.overview import Overview, Partition, read_overview
from service.admin.verdict import Level, OverviewVerdict, judge
from service.web.page import session
from service.web.page.charts import panels
from service.web.page.memory import Memory
from service.web.page.render import fragment
from service.web.page.visit import Parts, Visit

REFRESH = 5
"""Seconds after which the browser fetches the overview again. The gauges are measured as often."""
QUESTIONS = (
    ("working", "Is it working?", ("Yes.", "Yes, with these exceptions:", "No, not everything:")),
    ("drift", "Is there drift?", ("No.", "Check this:", "This needs action:")),
    ("stuck", "Is anything stuck?", ("No.", "These need a decision:", "Yes:")),
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
    """Drift as a table with a row for each kind and a column for each specialization."""

    names: list[str]
    rows: list[tuple[str, list[int]]]


async def overview(visit: Visit) -> Response:
    """Show the state of the service, and what needs attention."""
    parts = visit.parts
    seen = await read_overview(visit.engine, visit.who, parts.health.by_component(), parts.waits, parts.memory.history)
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
        **values(seen, every, parts.memory),
    )


async def trends(visit: Visit) -> Response:
    """Show the charts alone. The overview fetches them once a minute."""
    parts = visit.parts
    seen = await read_overview(visit.engine, visit.who, {}, parts.waits, parts.memory.history)
    return visit.show("trends.html", charts=_charts(seen, parts.memory))


def values(seen: Overview, every: timedelta, memory: Memory) -> dict[str, Any]:
    """Return the values of the charts and of the panels below the questions."""
    return {
        "charts": _charts(seen, memory),
        "seen": seen,
        "drift": _drift(seen),
        "consumers": None if seen.partitions is None else _by_topic(seen.partitions),
        "every": every.total_seconds(),
    }


def _headline(verdict: OverviewVerdict) -> str:
    number = len(verdict.reasons)
    items = "1 item needs" if number == 1 else f"{number} items need"
    match verdict.level:
        case Level.GOOD:
            return "All is well."
        case Level.LOOK:
            return f"Running. {items} attention."
        case _:
            return f"Not everything runs. {items} attention."


def _charts(seen: Overview, memory: Memory) -> Markup:
    """Return the charts, from memory where nothing was measured since they were drawn."""
    if memory.charts is None or memory.charts[0] is not seen.series:
        drawn = panels(seen.series, seen.scan.run_id if seen.scan else None)
        memory.charts = seen.series, fragment("charts.html", measured=seen.series.measured, panels=drawn)
    return memory.charts[1]


def _drift(seen: Overview) -> Drift:
    found = seen.scan.drift if seen.scan else []
    names = sorted({name for _, name, _ in found})
    numbers = {(kind, name): number for kind, name, number in found}
    kinds = sorted({kind for kind, _, _ in found})
    return Drift(names, [(kind, [numbers.get((kind, name), 0) for name in names]) for kind in kinds])


def _by_topic(partitions: Sequence[Partition]) -> list[dict[str, str | int | datetime | None]]:
    return [_topic(topic, partitions) for topic in sorted({one.topic for one in partitions})]


def _topic(topic: str, partitions: Sequence[Partition]) -> dict[str, str | int | datetime | None]:
    own = [one for one in partitions if one.topic == topic]
    moved = max((one.moved_at for one in own if one.moved_at), default=None)
    return {"topic": topic, "lag": sum(one.lag for one in own), "moved_at": moved}


async def show(request: Request, error: Busy) -> Response | None:
    """Show the outage page, from this process's memory; return None where the token cannot be checked.

    Raises:
        NotSignedIn: the token is not valid, or this process knows that it was signed out.
        Forbidden: the role does not allow reading.
    """
    parts: Parts = request.app.state.parts
    visit = await _visit(request, parts)
    if visit is None:
        return None
    problems = parts.health.for_anybody()
    last = parts.memory.last
    every = parts.settings.reconcile_every
    return visit.show(
        "outage.html",
        503,
        {"Retry-After": str(error.retry_after)},
        fault=str(error),
        problems=problems,
        verdict=judge(last, every) if last else None,
        **(values(replace(last, problems=problems), every, parts.memory) if last else {"seen": None}),
        questions=QUESTIONS,
        links=LINKS,
        refresh=REFRESH,
    )


async def _visit(request: Request, parts: Parts) -> Visit | None:
    token = session.token_of(request)
    if parts.memory.is_ended(token):
        raise NotSignedIn("The token was signed out. Sign in with a new one.")
    who = parts.memory.find(token)
    if who is None:
        try:
            who = await parts.authenticator.identify(token)
        except Busy:
            return None
    allow(who, "read")
    return Visit(request, parts, who, session.csrf_of(token))
