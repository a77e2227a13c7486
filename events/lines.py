"""Events in a file: one structured CloudEvent a line."""

from __future__ import annotations

from time import time_ns

from events.base import Event
from events.reading import read_envelope


def read_line(line: str | bytes) -> Event:
    """The event of one line, with its id, source and time; without a time it occurs now.

    Raises:
        ContractViolation: the line does not keep the contract; its text names the field and what was wrong.
    """
    # A lone surrogate is passed on as bytes that are not UTF-8, and is refused as such.
    value = line.encode(errors="surrogatepass") if isinstance(line, str) else line
    return read_envelope(None, value, time_ns() // 1_000_000).event
