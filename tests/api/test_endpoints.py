"""R28 to R31 over HTTP, key by key."""

from __future__ import annotations

import httpx
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.reconcile.test_scan import fill


async def test_an_issue_has_the_keys_that_clients_read(admin: httpx.AsyncClient, engine: AsyncEngine) -> None:
    """A JSON array."""
    await fill(engine, {(3, "PLAYER"): 5}, {(3, "PLAYER"): 3})
    answer = await admin.get("/desync-issues")
    assert (answer.status_code, answer.json()) == (
        200,
        [
            {
                "user_id": 3,
                "user_email": "student3@example.org",
                "specialization": "PLAYER",
                "progress_level": 5,
                "license_level": 3,
                "difference": 2,
                "recommended_action": "sync_progress_to_license",
                "issue_type": "mismatched",
                "status": "suspected",
            }
        ],
    )
