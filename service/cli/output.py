"""The output of commands: answers on stdout, everything else on stderr, colours only on a terminal."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from service.core.names import escape_controls, one_line
from service.core.sheet import cell as as_cell

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

_PIPE_WIDTH = 10_000
"""Characters. A pipe has no width, and programs that read it expect one row on each line."""
_LONGEST_WORD = 40
"""Characters. A longer word may be broken over two lines. A UUID has 36."""
_GAP = 2
"""Characters between two columns."""


def stdout_console() -> Console:
    """Return the console for answers, which is stdout."""
    return _console(stderr=False)


def stderr_console() -> Console:
    """Return the console for progress, warnings and errors, which is stderr."""
    return _console(stderr=True)


def print_line(text: str) -> None:
    """Print one plain line of the answer."""
    sys.stdout.write(f"{escape_controls(text)}\n")
    sys.stdout.flush()  # the reader of a pipe sees the line at once


def print_note(text: str) -> None:
    """Print one plain line on stderr."""
    sys.stderr.write(f"{escape_controls(text)}\n")


def print_error(text: str) -> None:
    """Print on stderr why the command failed."""
    stderr_console().print(
        f"levelsync: {escape_controls(text)}", style="red", markup=False, highlight=False, soft_wrap=True
    )


def when(moment: datetime | None) -> str:
    """Return a time in UTC, to the second; a dash for None."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if moment else "-"


def print_json(document: object) -> None:
    """Print the answer as one JSON document."""
    print_line(json.dumps(document, indent=2, default=_as_json, ensure_ascii=False))


class Csv:
    """The answer as CSV, printed row by row. An apostrophe precedes text that a spreadsheet would calculate.

    The heading is printed with the first row, or at the end. A command that fails earlier has printed nothing.
    """

    def __init__(self, columns: Sequence[str], cells: Callable[[Any], Iterable[object]] | None = None) -> None:
        import csv

        self._sheet = csv.writer(sys.stdout, lineterminator="\n")
        self._columns: Sequence[str] | None = columns
        self._cells = cells or (lambda item: (getattr(item, name) for name in columns))

    def add(self, item: Any) -> None:
        """Print the row of one item, with the item's attributes or the sheet's own cells."""
        self._begin()
        self._sheet.writerow([_csv_cell(cell) for cell in self._cells(item)])

    def end(self) -> None:
        """Print the heading of a sheet that has no rows."""
        self._begin()
        sys.stdout.flush()

    def _begin(self) -> None:
        if self._columns is not None:
            self._sheet.writerow(self._columns)
            self._columns = None


def _csv_cell(cell: object) -> object:
    if isinstance(cell, (dict, list)):
        cell = json.dumps(cell, default=_as_json, ensure_ascii=False)
    return as_cell(one_line(cell) if isinstance(cell, str) else cell)


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], spare: Sequence[str] = ()
) -> None:
    """Print a table: with lines and colours on a terminal, as aligned plain text elsewhere.

    A terminal that is too narrow for whole words does not show the `spare` columns; the first of them goes first.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = stdout_console()
    lines = box.SIMPLE_HEAD if console.is_terminal else None
    cells = [["-" if cell is None else one_line(str(cell)) for cell in row] for row in rows]
    widths = _widths(console.width, columns, cells, spare)
    table = Table(
        title=title, title_justify="left", box=lines, collapse_padding=lines is not None, pad_edge=lines is None
    )
    for index, width in widths.items():
        table.add_column(columns[index], overflow="fold", width=width)
    for row in cells:
        table.add_row(*(Text(row[index]) for index in widths))
    console.print(table)
    if left_out := [column for index, column in enumerate(columns) if index not in widths]:
        print_note(f"Not shown, because the terminal is too narrow: {', '.join(left_out)}")


def _widths(room: int, columns: Sequence[str], cells: Sequence[Sequence[str]], spare: Sequence[str]) -> dict[int, int]:
    """Return the width of each column that fits, by its index. The widest columns are folded first, between words."""
    from rich.cells import cell_len

    texts = [[column, *(row[index] for row in cells)] for index, column in enumerate(columns)]
    widths = {index: max(map(cell_len, found)) for index, found in enumerate(texts)}
    words = [[word for text in found for word in text.split()] for found in texts]
    least = [min(_LONGEST_WORD, max(map(cell_len, found), default=0)) for found in words]
    for column in spare:
        if sum(least[index] + _GAP for index in widths) > room:
            del widths[columns.index(column)]
    while (over := sum(width + _GAP for width in widths.values()) - room) > 0:
        widest = max(widths, key=lambda index: widths[index] - least[index])
        if widths[widest] <= least[widest]:
            break
        widths[widest] -= min(over, widths[widest] - least[widest])
    return widths


def progress(*columns: ProgressColumn, transient: bool = True) -> Progress:
    """Return a progress bar on stderr, which is shown only on a terminal."""
    from rich.progress import Progress

    console = stderr_console()
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
