"""LevelSynced: a sync or a heal wrote a level. What events apply is not told again: their own topic says it."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import ConfigDict, Field

from events.base import Event
from events.fields import Level, LevelBefore, ShortText, Specialization, UserId
from events.topics import LEVEL_SYNCED_TOPIC, LEVEL_SYNCED_TYPE


class LevelSynced(Event):
    """levelsync wrote one side of a pair by a decision."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user_id": 42,
                    "specialization": "PLAYER",
                    "target": "license",
                    "old_level": 5,
                    "new_level": 3,
                    "cause": "admin@example.org",
                }
            ]
        }
    )

    TYPE: ClassVar[str] = LEVEL_SYNCED_TYPE
    TOPIC: ClassVar[str] = LEVEL_SYNCED_TOPIC

    user_id: UserId
    specialization: Specialization
    target: Literal["progress", "license"] = Field(description="Which row was written.")
    old_level: LevelBefore | None = Field(None, description="Absent: the row was missing, or held no level.")
    new_level: Level
    cause: ShortText = Field(description="The run's id, or the subject who called the sync.")

    @property
    def key(self) -> bytes:
        """The user's id."""
        return b"%d" % self.user_id
