"""ReconcileChunk: one range of a run, for one worker of the group (law 7). Internal to levelsync."""

from __future__ import annotations

from typing import ClassVar, Literal
from uuid import UUID

from pydantic import ConfigDict, Field

from events.base import Event
from events.fields import INT4_MAX
from events.topics import RECONCILE_CHUNK_TYPE, RECONCILE_CHUNKS_TOPIC


class ReconcileChunk(Event):
    """Asks one worker to take one range of a run."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"run_id": "0b7f4f0e-6d0c-4a3e-9a65-3c6f2d1f5f10", "phase": "scan", "chunk": 0}]
        }
    )

    TYPE: ClassVar[str] = RECONCILE_CHUNK_TYPE
    TOPIC: ClassVar[str] = RECONCILE_CHUNKS_TOPIC

    run_id: UUID = Field(description="The run whose range it is.")
    phase: Literal["scan", "confirm", "heal"] = Field(description="Each is a pass of its own over the ranges.")
    chunk: int = Field(ge=0, le=INT4_MAX, description="The range's number within its run, from 0.")

    @property
    def key(self) -> bytes:
        """`run_id:chunk`, which spreads the ranges of a run over the partitions."""
        return f"{self.run_id}:{self.chunk}".encode()
