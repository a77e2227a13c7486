"""The sample events: `examples/events.jsonl` of a checkout, and of the wheel, which carries it here."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from events import LicenseAdvanced, ProgressLeveledUp, read_line

_CHECKOUT = Path(__file__).parents[2] / "examples" / "events.jsonl"


def sample_events() -> list[ProgressLeveledUp | LicenseAdvanced]:
    """Read the sample events, in the order of the file."""
    packed = files("service.demo") / "events.jsonl"
    text = (packed if packed.is_file() else _CHECKOUT).read_text(encoding="utf-8")
    events = [read_line(line) for line in text.splitlines() if line.strip()]
    return [event for event in events if isinstance(event, ProgressLeveledUp | LicenseAdvanced)]
