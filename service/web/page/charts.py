"""The overview's charts as SVG shapes, which a template draws without a library, a script or inline style.

A chart is 300 by 100 units. Its lines differ in pattern as well as in colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from service.admin.series import Point, Series, Span
from service.telemetry import metrics
from service.web.page.render import bound, number

Values = Sequence[float | None]
LEFT, RIGHT, TOP, BOTTOM = 44, 298, 6, 84
_LOG_TICKS = ((0.01, "10 ms"), (1, "1 s"), (60, "1 min"), (3600, "1 h"))
_SHORTEST, _LONGEST = 0.005, float(metrics.LONGEST_DELAY)
_RIGHT_NOW = 3
"""How many of the newest points may be empty, because a process stores its sample seconds after the minute's end."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart. Each piece between gaps has the points of an SVG polyline."""

    name: str
    pattern: int
    latest: str
    pieces: list[str]


@dataclass(frozen=True, slots=True)
class Tick:
    """A height of the axis and its label."""

    y: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One quantity over one period, as a drawing and as a table."""

    span: str
    begin: str
    middle: str
    summary: str
    ticks: list[Tick]
    lines: list[Line]
    rows: list[tuple[Point, list[str]]]
    """A row of the table for each measured point, the newest first."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One quantity over the last hour and over the last day, and a link to its details."""

    key: str
    title: str
    link: str
    linked: str
    charts: list[Chart]


@dataclass(frozen=True, slots=True)
class _Quantity:
    """A quantity as a panel shows it: its lines by name, the format of a value, and the scale."""

    key: str
    title: str
    link: str
    linked: str
    lines: tuple[tuple[str, Callable[[Point], float | None]], ...]
    written: Callable[[float], str]
    logarithmic: bool = False


def panels(series: Series, scan_run: str | None) -> list[Panel]:
    """Return all panels. `scan_run` is the run of the last complete scan."""
    return [
        Panel(one.key, one.title, one.link, one.linked, [_chart(one, span) for span in (series.hour, series.day)])
        for one in _quantities(series, scan_run)
    ]


def _quantities(series: Series, scan_run: str | None) -> list[_Quantity]:
    outcomes = [name for name in metrics.OUTCOMES if any(point.outcomes[name] for point in series.day.points)]
    runs = f"/page/runs/{scan_run}#issues" if scan_run else "/page/runs"
    whole = lambda value: number(int(value))  # noqa: E731 - a format
    return [
        _Quantity(
            "rate",
            "Events a second, by outcome",
            "#events",
            "Counts by type",
            tuple((name.replace("_", " "), _rate_of(name)) for name in outcomes) or (("applied", _rate_of("applied")),),
            lambda value: f"{value:,.3g}" if value < 1000 else f"{value:,.0f}",  # noqa: PLR2004 - more digits add nothing
        ),
        _Quantity(
            "delay",
            "Delay from event to effect",
            "#consumers",
            "Lag by partition",
            (("p50", _p50), ("p99", _p99)),
            bound,
            logarithmic=True,
        ),
        _Quantity("lag", "Records waiting", "#consumers", "Lag by partition", (("waiting", lambda at: at.lag),), whole),
        _Quantity(
            "drift", "Pairs that disagree", runs, "Issues of the last scan", (("pairs", lambda at: at.drift),), whole
        ),
        _Quantity(
            "letters",
            "Open dead letters",
            "/page/dead-letters",
            "The letters",
            (("open", lambda at: at.dead_letters),),
            whole,
        ),
    ]


def _rate_of(outcome: str) -> Callable[[Point], float | None]:
    return lambda at: at.outcomes[outcome] / at.seconds if at.seconds else None


def _p50(at: Point) -> float | None:
    return at.delay.p50 if at.delay else None


def _p99(at: Point) -> float | None:
    return at.delay.p99 if at.delay else None


def _chart(quantity: _Quantity, span: Span) -> Chart:
    by_line = [(name, [read(point) for point in span.points]) for name, read in quantity.lines]
    height, ticks = _log_scale() if quantity.logarithmic else _linear_scale([v for _, vs in by_line for v in vs])
    lines = [
        Line(name, place, _latest(values, quantity.written), _pieces(values, height))
        for place, (name, values) in enumerate(by_line)
    ]
    cells = zip(span.points, *(values for _, values in by_line), strict=True)
    rows = [
        (point, ["none" if value is None else quantity.written(value) for value in values])
        for point, *values in cells
        if point.seconds
    ]
    hours = len(span.points) * span.step.total_seconds() / 3600
    begin, middle = ("60 min ago", "30 min") if hours == 1 else ("24 h ago", "12 h")
    text = "; ".join(f"{name}: {_summary(values, quantity.written)}" for name, values in by_line)
    return Chart(span.name, begin, middle, f"{quantity.title}, {span.name}. {text}.", ticks, lines, rows[::-1])


def _latest(values: Values, written: Callable[[float], str]) -> str:
    found = [value for value in values[-_RIGHT_NOW:] if value is not None]
    return written(found[-1]) if found else "none"


def _summary(values: Values, written: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None]
    return f"last {_latest(values, written)}, highest {written(max(known))}" if known else "not measured"


def _pieces(values: Values, height: Callable[[float], float]) -> list[str]:
    step = (RIGHT - LEFT) / (len(values) - 1)
    found: list[list[str]] = [[]]
    for place, value in enumerate(values):
        if value is not None:
            found[-1].append(f"{LEFT + step * place:.1f},{height(value):.1f}")
        elif found[-1]:
            found.append([])
    return [" ".join(piece if len(piece) > 1 else piece * 2) for piece in found if piece]  # one point is a dot


def _linear_scale(values: Iterable[float | None]) -> tuple[Callable[[float], float], list[Tick]]:
    top = _round_up(max((value for value in values if value is not None), default=0) or 1)

    def height(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * value / top

    return height, [Tick(height(value), _short(value)) for value in (0, top / 2, top)]


def _log_scale() -> tuple[Callable[[float], float], list[Tick]]:
    """Return a logarithmic scale from milliseconds to hours. A value above the last bucket is drawn at its bound."""

    def height(seconds: float) -> float:
        kept = min(max(seconds, _SHORTEST), _LONGEST)
        return BOTTOM - (BOTTOM - TOP) * math.log(kept / _SHORTEST) / math.log(_LONGEST / _SHORTEST)

    return height, [Tick(height(seconds), label) for seconds, label in _LOG_TICKS]


def _round_up(value: float) -> float:
    """Return the smallest of 1, 2, 5 or 10 times a power of ten that is not below `value`."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * times for times in (1, 2, 5, 10) if power * times >= value * 0.999_999)


def _short(value: float) -> str:
    """Format a value of the axis in at most five characters."""
    if value >= 1e6:  # noqa: PLR2004 - a million
        return f"{value / 1e6:g} M"
    return f"{value / 1e3:g} k" if value >= 1e4 else f"{value:,g}"  # noqa: PLR2004 - four digits fit
