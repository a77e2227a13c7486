"""Examples of answers, for the documents."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict

ISSUE = {
    "user_id": 123,
    "user_email": "student123@example.org",
    "specialization": "PLAYER",
    "progress_level": 5,
    "license_level": 4,
    "difference": 1,
    "recommended_action": "sync_progress_to_license",
    "issue_type": "mismatched",
}
FOUND = {name: value for name, value in ISSUE.items() if name not in {"difference", "recommended_action"}} | {
    "status": "confirmed",
    "detail": "",
    "seen_at": "2026-11-23T06:00:00+00:00",
    "lowered": False,
}
SYNCED = {
    "success": True,
    "message": "license level changed from 4 to 5",
    "action": "updated",
    "synced": True,
    "progress_level": 5,
    "license_level": 5,
    "old_progress_level": 5,
    "new_progress_level": 5,
    "old_license_level": 4,
    "new_license_level": 5,
}
RUN_ID = "3f301f46-108e-5aec-ac7d-bb07d4badd90"
COUNTS = {
    "scanned": 294,
    "matching": 293,
    "mismatched": 1,
    "missing_license": 0,
    "missing_progress": 0,
    "lowered": 0,
    "needs_decision": 0,
    "unconfirmed": 0,
    "healed": 0,
    "changed_meanwhile": 0,
    "failed": 0,
}
RUN = {
    "run_id": RUN_ID,
    "status": "completed",
    "dry_run": True,
    "direction": "highest",
    "specialization": None,
    "user_id": None,
    "requested_by": "1",
    "requested_at": "2026-11-23T06:00:00+00:00",
    "finished_at": "2026-11-23T06:00:11+00:00",
    "progress": {
        "ranges_done": 2,
        "ranges_total": 2,
        "phase": None,
        "seconds_left": None,
        "pairs_per_second": None,
    },
    "counts": COUNTS,
    "unconfirmed_by_kind": {},
    "would_stop": False,
}
BULK = {"success": True, "total_issues": 1, "more": False, "run_id": RUN_ID}
NOT_YET = dict.fromkeys(("success", "total_issues", "issues", "synced_count", "failed_count", "results", "more"))


def example(one: dict[str, Any]) -> ConfigDict:
    """A model's example."""
    return ConfigDict(json_schema_extra={"examples": [one]})
