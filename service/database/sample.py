"""Sample users for a database of our own: `levelsync up` and `levelsync demo` make them in an empty `users`."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

USERS = 200
"""Ids 1 to 200: an admin (1), an instructor (2), students."""

_USERS_THERE = text("SELECT EXISTS (SELECT FROM users)")
_STATEMENTS = (
    """
    INSERT INTO users (id, name, email, role)
    SELECT id, initcap(role) || ' ' || id, role || id || '@example.org', role::userrole
      FROM generate_series(1, :users) AS id
     CROSS JOIN LATERAL (SELECT CASE id WHEN 1 THEN 'admin' WHEN 2 THEN 'instructor' ELSE 'student' END) AS r (role)
    """,
    # Levels 1 to 5 of the three specializations that the migrations seed, for most students, in agreement below.
    """
    INSERT INTO specialization_progress (student_id, specialization_id, current_level, total_xp,
           completed_sessions, completed_projects, last_activity, created_at, updated_at)
    SELECT id, specialization, level, level * 12000, level * 10, level, moment, moment - interval '90 days', moment
      FROM generate_series(3, :users) AS id
     CROSS JOIN LATERAL (VALUES ('PLAYER', 1 + id % 13 % 5, id % 10 <> 9),
                                ('COACH', 1 + id % 5, id % 3 = 0),
                                ('INTERNSHIP', 1 + id % 3, id % 4 = 0)) AS v (specialization, level, has_it)
     CROSS JOIN LATERAL (SELECT timezone('UTC', now()) - id * interval '1 hour') AS m (moment)
     WHERE has_it
    """,
    """
    INSERT INTO user_licenses (user_id, specialization_type, current_level, max_achieved_level,
           started_at, last_advanced_at, created_at, updated_at)
    SELECT student_id, specialization_id, current_level, current_level,
           created_at, last_activity, created_at, updated_at
      FROM specialization_progress ORDER BY id
    """,
    "SELECT setval(pg_get_serial_sequence('users', 'id'), :users)",
)


async def sample_users(connection: AsyncConnection) -> bool:
    """Make 200 users with some progress and the licenses that agree with it, in the caller's transaction.

    Returns whether it made any: a database that has users already is left alone.
    """
    if await connection.scalar(_USERS_THERE):
        return False
    for statement in _STATEMENTS:
        await connection.execute(text(statement), {"users": USERS} if ":users" in statement else {})
    return True
