"""What the two level events have in common: a pair, and the level that it reached."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from events.base import Event
from events.fields import Level, LevelBefore, Specialization, UserId


class LevelRaised(Event):
    """A pair reached a level. A demotion is no event: it is a sync (law 2)."""

    user_id: UserId
    specialization: Specialization
    to_level: Level = Field(
        description="The level reached, above `from_level` where that is there. A JSON integer: 4.0 is refused."
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
