"""One range of a reconcile, for any worker (internal)."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from events.base import Event, Text
from events.topics import RECONCILE_CHUNK_TYPE, RECONCILE_CHUNKS_TOPIC


class ReconcileChunk(Event):
    """A range of keys of one run waits for a worker."""

    TYPE: ClassVar[str] = RECONCILE_CHUNK_TYPE
    TOPIC: ClassVar[str] = RECONCILE_CHUNKS_TOPIC

    run_id: Text
    phase: Literal["scan", "confirm", "heal"]
    chunk: Annotated[int, Field(ge=0)]

    @property
    def key(self) -> str:
        """Run and range, so that ranges spread over the partitions."""
        return f"{self.run_id}:{self.chunk}"
