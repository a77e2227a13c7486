"""Print how many rows differ, as JSON. `python reladiff_process.py URL` runs in reladiff's venv."""

from __future__ import annotations

import json
import sys

from reladiff import TableSegment, connect, diff_tables  # type: ignore[import-not-found]

DATABASE = connect(sys.argv[1], thread_count=4)


def segment(table: str, user: str, specialization: str) -> TableSegment:
    """Return the pairs and levels of a table."""
    return TableSegment(
        DATABASE, ("public", table), (user, specialization), extra_columns=("current_level",)
    ).with_schema()


LEFT = segment("specialization_progress", "student_id", "specialization_id")
RIGHT = segment("user_licenses", "user_id", "specialization_type")
print(json.dumps({"rows": sum(1 for _ in diff_tables(LEFT, RIGHT))}))
