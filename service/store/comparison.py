"""The comparison of the two tables, used by the scan and by the list of issues.

It shares no code with the write path, so that it can find mistakes of the write path. A migration created
`levelsync.read_pairs()`, which the view `levelsync.pairs` reads. It is the same join with fewer kinds.
"""

from __future__ import annotations

from service.core.names import folded
from service.levels import MAXIMA

OF_ONE_PROGRESS = f"{folded('specialization_id')} = {folded(':specialization')}"
OF_ONE_LICENSE = f"{folded('specialization_type')} = {folded(':specialization')}"
"""The condition on each table that selects one specialization, in any case."""

_SAME_LICENSE = f"{folded('o.specialization_type')} = {folded('l.specialization_type')}"
_LICENSE_OF_PROGRESS = f"{folded('o.specialization_type')} = {folded('p.specialization_id')}"
_PROGRESS_OF_LICENSE = f"{folded('o.specialization_id')} = {folded('l.specialization_type')}"
_SPECIALIZATION_OF_PAIR = (
    f"{folded('s.id')} = {folded('coalesce(CAST(l.specialization_type AS text), CAST(p.specialization_id AS text))')}"
)
COUNTED_WITH_LICENSE = "counted_with_license"
"""The kind of a progress row whose license has the name in another case. The pair is counted with the license."""
_KIND = f"""CASE
               WHEN p.current_level = l.current_level AND l.current_level BETWEEN 1 AND own.max_levels THEN NULL
               WHEN own.id IS NULL THEN
                   CASE WHEN NOT EXISTS (SELECT FROM maxima s WHERE {_SPECIALIZATION_OF_PAIR})
                        THEN 'unknown_specialization'
                        WHEN EXISTS (SELECT FROM user_licenses o
                                      WHERE o.user_id = l.user_id AND o.id <> l.id AND {_SAME_LICENSE})
                        THEN 'duplicate' ELSE 'wrong_case' END
               WHEN l.id IS NULL AND EXISTS (SELECT FROM user_licenses o
                                              WHERE o.user_id = p.student_id AND {_LICENSE_OF_PROGRESS})
               THEN '{COUNTED_WITH_LICENSE}'
               WHEN EXISTS (SELECT FROM user_licenses o
                             WHERE o.user_id = l.user_id AND o.id <> l.id AND {_SAME_LICENSE}) THEN 'duplicate'
               WHEN p.id IS NOT NULL AND p.current_level IS NULL
                 OR l.id IS NOT NULL AND l.current_level IS NULL THEN 'null_level'
               WHEN p.current_level NOT BETWEEN 1 AND own.max_levels
                 OR l.current_level NOT BETWEEN 1 AND own.max_levels THEN 'out_of_range'
               WHEN l.id IS NULL THEN 'missing_license'
               WHEN p.id IS NULL THEN 'missing_progress'
               WHEN p.current_level <> l.current_level THEN 'mismatched'
               END"""
"""The kind of a pair (law 8), NULL where the rows agree. That case comes first because it is by far the most common, so
that its cost is the cost of a scan.
"""
PROGRESS_OF_THE_NAME = f"""
               CASE WHEN own.id IS NOT NULL THEN p.current_level ELSE
                    (SELECT max(o.current_level) FROM specialization_progress o
                      WHERE o.student_id = l.user_id AND {_PROGRESS_OF_LICENSE}) END"""
"""The level of progress to show to a person, also where the license has the name in another case."""


def compared(of_progress: str, of_licenses: str, progress_level: str = "p.current_level") -> str:
    """Return a query that selects user_id, specialization, progress_level, license_level and kind of every pair.

    `of_progress` and `of_licenses` are conditions on the two tables. The query needs the parameters of `MAXIMA`.
    """
    return f"""
      WITH maxima AS MATERIALIZED ({MAXIMA})
    SELECT coalesce(p.student_id, l.user_id) AS user_id,
           coalesce(CAST(p.specialization_id AS text), CAST(l.specialization_type AS text)) AS specialization,
           {progress_level} AS progress_level,
           l.current_level AS license_level,
           {_KIND} AS kind
      FROM (SELECT * FROM specialization_progress WHERE {of_progress}) p
      FULL JOIN (SELECT * FROM user_licenses WHERE {of_licenses}) l
        ON l.user_id = p.student_id AND CAST(l.specialization_type AS text) = CAST(p.specialization_id AS text)
      LEFT JOIN maxima own
        ON own.id = coalesce(CAST(l.specialization_type AS text), CAST(p.specialization_id AS text))"""
