"""A user's license was advanced."""

from typing import ClassVar

from events.base import LevelEvent, Text, UserId
from events.topics import LICENSE_ADVANCED_TOPIC, LICENSE_ADVANCED_TYPE


class LicenseAdvanced(LevelEvent):
    """`user_licenses` was raised to `to_level`; the progress follows."""

    TYPE: ClassVar[str] = LICENSE_ADVANCED_TYPE
    TOPIC: ClassVar[str] = LICENSE_ADVANCED_TOPIC

    advanced_by: UserId | None = None
    reason: Text | None = None
    requirements_met: Text | None = None
