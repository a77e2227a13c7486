"""The output of the demo: headings, sentences, tables of pairs, history rows and metrics."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.text import Text

from service.cli import output
from service.cli.demo.queries import HistoryRow, ShownPair
from service.dead_letters import Letter

_METRICS = (
    "levelsync_events_total",
    "levelsync_event_delay_seconds_count",
    "levelsync_batch_seconds_count",
    "levelsync_dead_letters",
    "levelsync_consumer_lag_records",
    "levelsync_reconcile_runs_total",
    "levelsync_heals_total",
    "levelsync_drift_pairs",
)


class Screen:
    """Numbered steps on stdout."""

    def __init__(self) -> None:
        self._console = output.stdout_console()
        self._step = 0

    def step(self, title: str) -> None:
        """Print the heading of the next step."""
        self._step += 1
        self._console.print()
        self._console.print(Text(f"{self._step}. {title}", style="bold cyan"))

    def print_sentence(self, text: str) -> None:
        """Print a sentence."""
        self._console.print(Text(f"   {text}"))

    def pairs(self, title: str, pairs: Iterable[ShownPair]) -> None:
        """Show the levels of some pairs in both tables."""
        rows = [(p.user_id, p.specialization, p.progress, p.license, "yes" if p.agrees else "NO") for p in pairs]
        columns = ("user", "specialization", "specialization_progress", "user_licenses", "agree")
        output.print_table(title, columns, rows)

    def history(self, rows: Iterable[HistoryRow]) -> None:
        """Show rows of `license_progressions`."""
        shown = [
            (
                r.user_id,
                r.specialization,
                f"{r.from_level} → {r.to_level}",
                f"{r.advanced_at:%Y-%m-%d %H:%M:%S}",
                r.reason,
            )
            for r in rows
        ]
        columns = ("user", "specialization", "level", "at (UTC)", "reason")
        output.print_table("license_progressions", columns, shown, spare=("at (UTC)",))

    def letter(self, letter: Letter, meaning: str) -> None:
        """Show one dead letter."""
        where = f"{letter.topic}, partition {letter.partition}, offset {letter.offset}"
        rows = [("reason", f"{letter.reason}: {meaning}"), ("detail", letter.detail), ("record", where)]
        rows.append(("value", (letter.value or b"").decode(errors="replace")))
        output.print_table("levelsync.dead_letters", ("", ""), rows)

    def metrics(self, text: str) -> None:
        """Show the samples of `_METRICS` that are not 0."""
        rows = [(name, labels, value) for name, labels, value in _samples(text) if name in _METRICS and float(value)]
        output.print_table("/metrics", ("metric", "labels", "value"), rows)


def _samples(text: str) -> Iterable[tuple[str, str, str]]:
    for line in text.splitlines():
        if match := re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line):
            yield match[1], match[2] or "", match[3].removesuffix(".0")
