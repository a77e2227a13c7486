"""ReconcileChunk: one range of a run, for one worker of the group (law 7). Internal to levelsync."""

from __future__ import annotations

from typing import ClassVar, Literal
from uuid import UUID

from pydantic import Field

from events.base import Event
from events.fields import Count
from events.topics import RECONCILE_CHUNK_TYPE, RECONCILE_CHUNKS_TOPIC


class ReconcileChunk(Event):
    """Asks one worker to take one range of a run."""

    TYPE: ClassVar[str] = RECONCILE_CHUNK_TYPE
    TOPIC: ClassVar[str] = RECONCILE_CHUNKS_TOPIC

    run_id: UUID
    phase: Literal["scan", "heal"] = Field(description="The breaker decides between the two, so each is its own pass.")
    chunk: Count = Field(description="The range's number within its run, from 0.")

    @property
    def key(self) -> bytes:
        """`run_id:chunk`, which spreads the ranges of a run over the partitions."""
        return f"{self.run_id}:{self.chunk}".encode()
