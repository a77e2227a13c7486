"""The rows of the benchmark's tables, and whether each meets its target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Row:
    """One measure: the result of each round, and its target (``at_least`` or ``at_most``), if it has one."""

    measure: str
    rounds: tuple[float, ...]
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def middle(self) -> float:
        """Return the median of the rounds, which is compared with the target."""
        return median(self.rounds)

    @property
    def met(self) -> bool | None:
        """Return whether the target is met; None without a target."""
        if self.at_least is None and self.at_most is None:
            return None
        above = self.at_least is None or self.middle >= self.at_least
        return above and (self.at_most is None or self.middle <= self.at_most)

    def as_dict(self) -> dict[str, Any]:
        """Return the row as bench/results/ stores it."""
        return asdict(self)


def ratio(measure: str, ours: Sequence[float], theirs: Sequence[float], **more: Any) -> Row:
    """Return a row of ratios within each round, because the speed of a machine changes between rounds."""
    rounds = tuple(round(a / b, 3) for a, b in zip(ours, theirs, strict=True))
    return Row(measure, rounds, "times", **more)


def as_markdown(rows: Sequence[Row]) -> str:
    """Return the table of one part."""
    lines = ["| measure | median | rounds | target | met |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *map(_line, rows)])


def _line(row: Row) -> str:
    met = {True: "yes", False: "**no**", None: ""}[row.met]
    rounds = " · ".join(map(number, row.rounds)) if len(row.rounds) > 1 else ""
    measure = f"{row.measure} ({row.note})" if row.note else row.measure
    return f"| {measure} | {number(row.middle)} {row.unit} | {rounds} | {_target(row)} | {met} |"


def _target(row: Row) -> str:
    if row.at_least is not None:
        return f"≥ {number(row.at_least)}"
    return f"≤ {number(row.at_most)}" if row.at_most is not None else ""


def number(value: float) -> str:
    """Format with at least three significant figures, and as a whole number from 100 on."""
    if abs(value) >= 100 or value == int(value):  # noqa: PLR2004 - see the docstring
        return f"{value:,.0f}"
    return f"{value:.2f}"
