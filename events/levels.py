"""Events about levels: those that the application publishes, and the one that reports a sync or heal."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from events.base import Event, Level, LevelBefore, LongText, ShortText, Specialization, UserId
from events.topics import (
    LEVEL_SYNCED_TOPIC,
    LEVEL_SYNCED_TYPE,
    LICENSE_ADVANCED_TOPIC,
    LICENSE_ADVANCED_TYPE,
    PROGRESS_LEVELED_UP_TOPIC,
    PROGRESS_LEVELED_UP_TYPE,
)


class LevelRaised(Event):
    """A pair reached a level. A demotion is not an event: it is a sync (law 2)."""

    user_id: UserId
    specialization: Specialization
    to_level: Level = Field(
        description="The level reached. It must be above `from_level`, if that is present, and a JSON integer: "
        "4.0 is refused."
    )
    from_level: LevelBefore | None = None

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.from_level is not None and self.from_level >= self.to_level:
            raise ValueError("to_level must be above from_level")
        return self

    @property
    def key(self) -> bytes:
        """The user's id, so that the events of a pair share a partition."""
        return b"%d" % self.user_id


class ProgressLeveledUp(LevelRaised):
    """`specialization_progress.current_level` of a pair rose to `to_level`, by one or more levels."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": 42, "specialization": "PLAYER", "from_level": 3, "to_level": 5}]}
    )

    TYPE: ClassVar[str] = PROGRESS_LEVELED_UP_TYPE
    TOPIC: ClassVar[str] = PROGRESS_LEVELED_UP_TOPIC


class LicenseAdvanced(LevelRaised):
    """`user_licenses.current_level` of a pair rose to `to_level`. The fields with who and why are information only."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user_id": 42,
                    "specialization": "COACH",
                    "from_level": 1,
                    "to_level": 2,
                    "advanced_by": 7,
                    "reason": "Exam passed",
                }
            ]
        }
    )

    TYPE: ClassVar[str] = LICENSE_ADVANCED_TYPE
    TOPIC: ClassVar[str] = LICENSE_ADVANCED_TOPIC

    advanced_by: UserId | None = Field(None, description="The user who advanced the license.")
    reason: LongText | None = Field(None, description="Why the license was advanced.")
    requirements_met: LongText | None = Field(None, description="Which requirements were met.")


class LevelSynced(Event):
    """A sync or heal of levelsync wrote one side of a pair."""

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
    old_level: LevelBefore | None = Field(
        None, description="The previous level. Absent if the row was missing or its level was NULL."
    )
    new_level: Level
    cause: ShortText = Field(description="The id of the run, or the subject who called the sync.")

    @property
    def key(self) -> bytes:
        """The user's id, so that the events of a pair share a partition."""
        return b"%d" % self.user_id
