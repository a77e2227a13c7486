"""A sync or heal wrote a level."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from events.base import INT4, Event, Level, Specialization, Text, UserId
from events.topics import LEVEL_SYNCED_TOPIC, LEVEL_SYNCED_TYPE


class LevelSynced(Event):
    """What was written to one side of a pair, and why (`cause`: a run's id or a subject)."""

    TYPE: ClassVar[str] = LEVEL_SYNCED_TYPE
    TOPIC: ClassVar[str] = LEVEL_SYNCED_TOPIC

    user_id: UserId
    specialization: Specialization
    target: Literal["progress", "license"]
    old_level: Annotated[int, Field(ge=0, le=INT4)] | None = None
    new_level: Level
    cause: Text

    @property
    def key(self) -> str:
        """The user's id, as the level events have it."""
        return str(self.user_id)
