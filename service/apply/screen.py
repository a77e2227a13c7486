"""Which of the decoded events may be decided at all: known specialization, level in range, not before APPLY_SINCE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from events import Reason
from service.apply.outcomes import DeadLetter, LevelEvent, microseconds
from service.levels import Curriculum


@dataclass(slots=True)
class Screened:
    """The events to decide, the dead letters so far, and the indexes of events that a setting supersedes."""

    events: list[LevelEvent] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    superseded: list[int] = field(default_factory=list)


def screen(
    decoded: Sequence[LevelEvent | DeadLetter], curriculum: Curriculum, apply_since: datetime | None
) -> Screened:
    """Sort a decoded batch.

    Raises:
        InstallationFault: an event's specialization has no known maximum; its events wait (law 4).
    """
    result, since = Screened(), None if apply_since is None else microseconds(apply_since)
    levels = curriculum.levels
    for item in decoded:
        if isinstance(item, DeadLetter):
            result.letters.append(item)
        elif since is not None and item.decided_us < since:
            result.superseded.append(item.index)
        elif item.to_level <= levels.get(item.specialization, 0):  # most events: no call for each of them
            result.events.append(item)
        else:
            _place(item, curriculum, result)
    return result


def _place(event: LevelEvent, curriculum: Curriculum, result: Screened) -> None:
    canonical = curriculum.canonical(event.specialization)
    if canonical is None:
        result.letters.append(
            DeadLetter(
                event.index, Reason.UNKNOWN_SPECIALIZATION, f"there is no specialization {event.specialization!r}"
            )
        )
    elif event.to_level > (maximum := curriculum.max_level(canonical)):
        detail = f"level {event.to_level} is above the maximum {maximum} of {canonical}"
        result.letters.append(DeadLetter(event.index, Reason.LEVEL_OUT_OF_RANGE, detail))
    else:
        known = event if event.specialization == canonical else replace(event, specialization=canonical)
        result.events.append(known)
