"""A user reached a level by progress."""

from typing import ClassVar

from events.base import LevelEvent
from events.topics import PROGRESS_LEVELED_UP_TOPIC, PROGRESS_LEVELED_UP_TYPE


class ProgressLeveledUp(LevelEvent):
    """`specialization_progress` was raised to `to_level`; the license follows."""

    TYPE: ClassVar[str] = PROGRESS_LEVELED_UP_TYPE
    TOPIC: ClassVar[str] = PROGRESS_LEVELED_UP_TOPIC
