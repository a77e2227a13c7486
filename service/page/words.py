"""Values as people read them: times in UTC with their age, numbers, levels, bytes."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

from service import metrics

_MOST_INDENTED = 4096
"""Bytes of JSON. Nested deeply, 64 KB become 30 MB of spaces; no event of the contract comes near."""
_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def moment(value: datetime | str | None) -> str:
    """A time in UTC, to the second. One without a zone is the application's, which keeps UTC."""
    found = _time(value)
    return "never" if found is None else f"{found:%Y-%m-%d %H:%M:%S} UTC"


def machine(value: datetime | str | None) -> str:
    """The same for the attribute of `<time>`."""
    found = _time(value)
    return "" if found is None else found.isoformat()


def age(value: datetime | str | None) -> str:
    """How long ago, or how long until."""
    found = _time(value)
    if found is None:
        return ""
    seconds = (datetime.now(UTC) - found).total_seconds()
    return f"{duration(seconds)} ago" if seconds >= 0 else f"in {duration(-seconds)}"


def duration(seconds: float) -> str:
    """Seconds in the largest unit that fits."""
    for size, name in _UNITS:
        number = int(seconds // size)
        if number:
            return counted(number, name)
    return "less than a second"


def bound(seconds: float) -> str:
    """Return a bound of a histogram's bucket; the last bucket has none."""
    if math.isinf(seconds):
        return f"above {duration(metrics.LONGEST_DELAY)}"
    if seconds < 1:
        return f"up to {seconds * 1000:g} ms"
    return f"up to {seconds:g} s" if seconds < 60 else f"up to {duration(seconds)}"  # noqa: PLR2004 - a minute


def counted(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def number(value: float | None) -> str:
    """A number with its thousands apart."""
    return "-" if value is None else f"{value:,}"


def level(value: int | None) -> str:
    """A level; a dash where there is none."""
    return "-" if value is None else str(value)


def spaced(name: str) -> str:
    """A fixed name as words: `missing_license` is "missing license"."""
    return name.replace("_", " ")


def decoded(raw: bytes | None) -> str:
    """Bytes as text: JSON indented, other text as it is, what is no text with its bytes escaped."""
    if raw is None:
        return "(none: a tombstone)"
    shown = raw.decode("utf-8", "backslashreplace")
    if len(raw) > _MOST_INDENTED:
        return shown
    try:
        return json.dumps(json.loads(shown), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return shown


def _time(value: Any) -> datetime | None:
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    if found is None:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
