"""ProgressLeveledUp: a user's progress reached a level; the license follows."""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict

from events.level_raised import LevelRaised
from events.topics import PROGRESS_LEVELED_UP_TOPIC, PROGRESS_LEVELED_UP_TYPE


class ProgressLeveledUp(LevelRaised):
    """`specialization_progress.current_level` of a pair rose to `to_level`, by one level or by several."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": 42, "specialization": "PLAYER", "from_level": 3, "to_level": 5}]}
    )

    TYPE: ClassVar[str] = PROGRESS_LEVELED_UP_TYPE
    TOPIC: ClassVar[str] = PROGRESS_LEVELED_UP_TOPIC
