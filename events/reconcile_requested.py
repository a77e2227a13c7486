"""Somebody asks for a reconcile."""

from typing import ClassVar, Literal

from events.base import Event, Specialization, Text, UserId
from events.topics import RECONCILE_REQUESTED_TOPIC, RECONCILE_REQUESTED_TYPE

Direction = Literal["progress_to_license", "license_to_progress", "highest"]


class ReconcileRequested(Event):
    """A full scan is wanted; its id becomes the run's. Without more it writes nothing (dry run)."""

    TYPE: ClassVar[str] = RECONCILE_REQUESTED_TYPE
    TOPIC: ClassVar[str] = RECONCILE_REQUESTED_TOPIC

    direction: Direction = "progress_to_license"
    dry_run: bool = True
    specialization: Specialization | None = None
    user_id: UserId | None = None
    requested_by: Text | None = None
    force: bool = False

    @property
    def key(self) -> str:
        """The request's own id: requests need no order."""
        return self.id
