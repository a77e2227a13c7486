"""What a command prints: answers on stdout, everything else on stderr; colours on a terminal only."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from service.core.names import one_line, shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

_PIPE_WIDTH = 200
_CALCULATED = ("=", "+", "-", "@", "\t", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet takes for the beginning of a formula; some take the full-width signs too."""


def counted(number: int, one: str, many: str | None = None) -> str:
    """Give a number with its noun: "1 pair", "2 pairs", or `many` where an s does not make the plural."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def answers() -> Console:
    """Give the console of the answers: stdout."""
    return _console(stderr=False)


def remarks() -> Console:
    """Give the console of progress, warnings and errors: stderr."""
    return _console(stderr=True)


def say(text: str) -> None:
    """Print one plain line of the answer."""
    sys.stdout.write(f"{shown(text)}\n")
    sys.stdout.flush()  # a reader at the other end of a pipe sees it at once


def remark(text: str) -> None:
    """Print one plain line beside the answer."""
    sys.stderr.write(f"{shown(text)}\n")


def complain(text: str) -> None:
    """Print why the command ends as it does."""
    remarks().print(f"levelsync: {shown(text)}", style="red", markup=False, highlight=False, soft_wrap=True)


def print_json(document: object) -> None:
    """Print the answer as one JSON document."""
    say(json.dumps(document, indent=2, default=_as_json, ensure_ascii=False))


def print_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print the answer as CSV with a heading; an apostrophe stands before what a spreadsheet would calculate."""
    import csv

    sheet = csv.writer(sys.stdout, lineterminator="\n")
    sheet.writerow(columns)
    sheet.writerows([_csv_cell(cell) for cell in row] for row in rows)
    sys.stdout.flush()


def _csv_cell(cell: object) -> object:
    if isinstance(cell, (dict, list)):
        cell = json.dumps(cell, default=_as_json, ensure_ascii=False)
    if isinstance(cell, datetime):
        return cell.isoformat()
    if not isinstance(cell, str):
        return cell
    text = one_line(cell)
    return f"'{text}" if text.startswith(_CALCULATED) else text


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table: with lines and colours on a terminal, aligned plain text elsewhere."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = answers()
    lines = box.SIMPLE_HEAD if console.is_terminal else None
    table = Table(
        title=title, title_justify="left", box=lines, collapse_padding=lines is not None, pad_edge=lines is None
    )
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text("-" if cell is None else one_line(str(cell))) for cell in row))
    console.print(table)


def progress(*columns: ProgressColumn, transient: bool = True) -> Progress:
    """Give a progress bar beside the answer; on a terminal only."""
    from rich.progress import Progress

    console = remarks()
    return Progress(*columns, console=console, transient=transient, disable=not console.is_terminal)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else _PIPE_WIDTH)


def _as_json(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")
