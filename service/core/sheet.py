"""CSV that a spreadsheet opens without evaluating formulas."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from service.core.names import FORMULA_PREFIXES

ACTION_COLUMNS = (
    "id",
    "at",
    "subject",
    "role",
    "action",
    "arguments",
    "outcome",
    "times",
    "detail",
    "client_address",
    "request_id",
)
"""The columns of the audit log."""
ISSUE_COLUMNS = (
    "user_id",
    "user_email",
    "specialization",
    "issue_type",
    "progress_level",
    "license_level",
    "lowered",
    "status",
    "detail",
    "seen_at",
)
"""The columns of a run's issues."""

LETTER_COLUMNS = (
    "id",
    "reason",
    "detail",
    "topic",
    "partition",
    "offset",
    "first_seen_at",
    "attempts",
    "value_bytes",
    "state",
    "resolution",
    "would_apply_now",
    "would_apply_why",
)
"""The columns of dead letters."""


def as_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a header line and rows as CSV, with the line ends of RFC 4180."""
    sheet = io.StringIO()
    writer = csv.writer(sheet)
    writer.writerow(columns)
    writer.writerows([cell(value) for value in row] for row in rows)
    return sheet.getvalue()


def cell(value: Any) -> Any:
    """Return a value as a cell. Put an apostrophe before text that a spreadsheet would evaluate as a formula."""
    if isinstance(value, (dict, list)):
        value = json.dumps(value, default=str, ensure_ascii=False)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str) and value.startswith(FORMULA_PREFIXES):
        return f"'{value}"
    return value
