"""SQL that fills both tables with pairs, of which some disagree."""

from __future__ import annotations

_FILL = """
    SET session_replication_role = replica;  -- no foreign key is looked up for rows that are made to fit
    INSERT INTO public.specialization_progress (student_id, specialization_id, current_level, total_xp)
    SELECT g, s, 1 + g % 8, 0 FROM generate_series({first}, {last}) g, (VALUES ('PLAYER'), ('COACH')) v (s);
    INSERT INTO public.user_licenses (user_id, specialization_type, current_level, max_achieved_level, started_at)
    SELECT g, s, 1 + (g + (g % {every} = 0)::int) % 8, 8, now()
      FROM generate_series({first}, {last}) g, (VALUES ('PLAYER'), ('COACH')) v (s);
    SET session_replication_role = DEFAULT;
"""


def fill(first: int, last: int, every: int) -> str:
    """Return SQL that creates two pairs for each user from `first` to `last`. The pairs of every Nth user disagree."""
    return _FILL.format(first=first, last=last, every=every)
