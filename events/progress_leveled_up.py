"""ProgressLeveledUp: a user's progress reached a level; the license follows (R22)."""

from __future__ import annotations

from typing import ClassVar

from events.level_raised import LevelRaised
from events.topics import PROGRESS_LEVELED_UP_TOPIC, PROGRESS_LEVELED_UP_TYPE


class ProgressLeveledUp(LevelRaised):
    """`specialization_progress.current_level` of a pair rose to `to_level`, by one level or by several."""

    TYPE: ClassVar[str] = PROGRESS_LEVELED_UP_TYPE
    TOPIC: ClassVar[str] = PROGRESS_LEVELED_UP_TOPIC
