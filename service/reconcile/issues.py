"""The issues of a run: kept up to its limit, and some samples beyond it (law 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from service.reconcile import sql
from service.reconcile.values import Suspect
from service.settings import Settings

SAMPLES = 1000
"""Issues that are kept beyond the breaker's limit."""


@dataclass(frozen=True, slots=True)
class Issue:
    """A suspect, what became of it, and the server's words where it was refused."""

    suspect: Suspect
    status: str
    detail: str = ""


def breaker_limit(settings: Settings, pairs: int) -> int:
    """How many pairs a run may change without being forced: ``max(share of the pairs, a number)``."""
    return max(int(pairs * settings.reconcile_breaker_share), settings.reconcile_breaker_pairs)


async def room_for_issues(conn: AsyncConnection, run_id: UUID, settings: Settings) -> int:
    """How many more issues a run keeps. Workers that ask at once may each fill it: never less than promised."""
    run = (await conn.execute(sql.SCANNED_AND_KEPT, {"id": run_id})).one()
    return max(0, breaker_limit(settings, int(run.scanned)) + SAMPLES - int(run.kept))


async def keep(conn: AsyncConnection, run_id: UUID, issues: Sequence[Issue]) -> None:
    """Add issues to the run's."""
    if issues:
        suspects = [issue.suspect for issue in issues]
        levels = {
            "kinds": [suspect.kind for suspect in suspects],
            "progress": [suspect.progress_level for suspect in suspects],
            "licenses": [suspect.license_level for suspect in suspects],
        }
        await conn.execute(sql.ADD_ISSUES, _values(run_id, issues) | levels)


async def set_statuses(conn: AsyncConnection, run_id: UUID, issues: Sequence[Issue]) -> None:
    """Give those of the issues that were kept their new status."""
    if issues:
        await conn.execute(sql.SET_ISSUES, _values(run_id, issues))


def _values(run_id: UUID, issues: Sequence[Issue]) -> dict[str, Any]:
    return {
        "id": run_id,
        "users": [issue.suspect.user_id for issue in issues],
        "specializations": [issue.suspect.specialization for issue in issues],
        "statuses": [issue.status for issue in issues],
        "details": [issue.detail for issue in issues],
    }
