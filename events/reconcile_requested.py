"""ReconcileRequested: compare the two tables in full, and heal what differs if the request says so."""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict, Field

from events.base import Event
from events.fields import INT8_MAX, Direction, ShortText, Specialization, UserId
from events.topics import RECONCILE_REQUESTED_TOPIC, RECONCILE_REQUESTED_TYPE


class ReconcileRequested(Event):
    """Asks for one run; its event id is the run's id, so that asking twice runs once (law 7)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"direction": "highest", "dry_run": True, "specialization": "PLAYER", "requested_by": "ops"}]
        }
    )

    TYPE: ClassVar[str] = RECONCILE_REQUESTED_TYPE
    TOPIC: ClassVar[str] = RECONCILE_REQUESTED_TOPIC

    direction: Direction = Field("progress_to_license", description="Which row a heal believes.")
    dry_run: bool = Field(default=True, description="Report, and write nothing (law 8).")
    specialization: Specialization | None = Field(None, description="Only this one; absent: all.")
    user_id: UserId | None = Field(None, description="Only this user; absent: all.")
    requested_by: ShortText | None = Field(None, description="Who asks, for the report.")
    force: bool = Field(default=False, description="Heal even where the breaker would stop the run (law 8).")
    max_lowered: int | None = Field(
        None,
        ge=0,
        le=INT8_MAX,
        description="A real run stops before its first write when more levels would fall; absent: no limit.",
    )

    @property
    def key(self) -> bytes:
        """The request's id: a request that is sent again meets its first one on the same partition."""
        return self.id.encode()
