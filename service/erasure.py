"""Erasing a user from what levelsync keeps. The application's own rows are the application's to remove."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.dead_letters.select import SEARCHED_BYTES

_SAID = f"key = CAST(:key AS bytea) OR encode(substring(value FROM 1 FOR {SEARCHED_BYTES}), 'escape') ~ :said"
_STATEMENTS = {
    "dead letters": f"DELETE FROM levelsync.dead_letters WHERE {_SAID}",
    "events on their way": f"DELETE FROM levelsync.outbox WHERE {_SAID}",
    "rows removed by migrations": """
        DELETE FROM levelsync.removed_rows WHERE "row" ->> 'user_id' = :id OR "row" ->> 'student_id' = :id
    """,
    "runs of this user alone": """
        DELETE FROM levelsync.reconcile_runs WHERE user_id = CAST(:user AS bigint) AND finished_at IS NOT NULL
    """,
    "issues": "DELETE FROM levelsync.drift_issues WHERE user_id = CAST(:user AS bigint)",
    "suspects": """
        UPDATE levelsync.reconcile_ranges AS g
           SET suspects = (SELECT coalesce(jsonb_agg(e.suspect ORDER BY e.number), '[]')
                             FROM jsonb_array_elements(g.suspects) WITH ORDINALITY AS e (suspect, number)
                            WHERE e.suspect ->> 0 <> :id),
               suspect_count = (SELECT count(*) FROM jsonb_array_elements(g.suspects) AS e (suspect)
                                 WHERE e.suspect ->> 0 <> :id)
         WHERE g.after_user < :user AND g.upto_user >= :user
           AND EXISTS (SELECT FROM jsonb_array_elements(g.suspects) AS e (suspect) WHERE e.suspect ->> 0 = :id)
    """,
    "fences": """
        DELETE FROM levelsync.fences
         WHERE user_id = CAST(:user AS bigint) AND NOT EXISTS (SELECT FROM users WHERE id = CAST(:user AS bigint))
    """,
    "decisions in their name": """
        UPDATE levelsync.fences AS f SET decided_by = 'erased' FROM unnest(CAST(:names AS text[])) AS n (name)
         WHERE f.decided_by = n.name OR right(f.decided_by, length(n.name) + 4) = ' by ' || n.name
    """,
    "runs in their name": """
        UPDATE levelsync.reconcile_runs SET requested_by = NULL WHERE requested_by = ANY(CAST(:names AS text[]))
    """,
    "replays and discards in their name": """
        UPDATE levelsync.dead_letters SET resolved_by = 'erased' WHERE resolved_by = ANY(CAST(:names AS text[]))
    """,
    "audit rows in their name": """
        UPDATE levelsync.admin_actions SET subject = 'erased' WHERE subject = ANY(CAST(:names AS text[]))
    """,
    "audit rows about them": """
        UPDATE levelsync.admin_actions SET arguments = '{}', detail = '' WHERE arguments ->> 'user_id' = :id
    """,
}
"""By what it removes or changes, in words.

Fences go with the application's user, not before: a decision stands for as long as there is something to raise (law 2).
A user who is created later with this id starts without a history.
"""
_ADDRESS = text("SELECT email FROM users WHERE id = CAST(:user AS bigint)")
_UNFINISHED = text(
    "SELECT count(*) FROM levelsync.reconcile_runs WHERE user_id = CAST(:user AS bigint) AND finished_at IS NULL"
)


async def address_of(conn: AsyncConnection, user_id: int) -> str | None:
    """The address of a user whom the application still has; None where it has none of this id."""
    return (await conn.execute(_ADDRESS, {"user": user_id})).scalar_one_or_none()


async def unfinished_runs(conn: AsyncConnection, user_id: int) -> int:
    """Runs of this user alone that go on: they are erased when they have ended."""
    return int((await conn.execute(_UNFINISHED, {"user": user_id})).scalar_one())


async def erase(conn: AsyncConnection, user_id: int, address: str | None = None) -> dict[str, int]:
    """Erase a user in the caller's transaction; rows by what they are. `address`: a subject of their tokens."""
    values: dict[str, Any] = {
        "user": user_id,
        "id": str(user_id),
        "key": str(user_id).encode(),
        "said": rf'"user_id"\s*:\s*{user_id:d}(?![0-9.eE])',
        "names": [str(user_id), *([address] if address else [])],
    }
    counts: dict[str, int] = {}
    for what, statement in _STATEMENTS.items():
        wanted = {name: value for name, value in values.items() if f":{name}" in statement}
        counts[what] = (await conn.execute(text(statement), wanted)).rowcount
    return counts
