"""The specializations as a batch was decided with them, and the text by which the stored functions compare them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.levels import Curriculum, read_curriculum

_PRINT = text("SELECT levelsync.curriculum_v1()")


@dataclass(frozen=True, slots=True)
class Known:
    """A curriculum and its fingerprint: where the database's differs under the locks, the batch is decided again."""

    curriculum: Curriculum
    fingerprint: str | None


async def read_known(conn: AsyncConnection) -> Known:
    """Read both, the fingerprint first: a change in between is then found by the next comparison.

    Raises:
        InstallationFault: no level can be checked.
    """
    fingerprint = (await conn.execute(_PRINT)).scalar_one()
    return Known(await read_curriculum(conn), fingerprint)
