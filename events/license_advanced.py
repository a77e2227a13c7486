"""LicenseAdvanced: a user's license was advanced; the progress follows."""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict, Field

from events.fields import LongText, UserId
from events.level_raised import LevelRaised
from events.topics import LICENSE_ADVANCED_TOPIC, LICENSE_ADVANCED_TYPE


class LicenseAdvanced(LevelRaised):
    """`user_licenses.current_level` of a pair rose to `to_level`; who did it and why is for the reader."""

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

    advanced_by: UserId | None = Field(None, description="The user who advanced it.")
    reason: LongText | None = Field(None, description="Why it was advanced.")
    requirements_met: LongText | None = Field(None, description="Which requirements were met.")
