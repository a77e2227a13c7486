"""The page of the audit log: who requested what, from where, and with which outcome."""

from __future__ import annotations

from dataclasses import asdict
from typing import get_args

from starlette.responses import Response

from service.admin.audit import NEWEST_ACTION, ActionFilter, ActionOutcome, list_actions
from service.admin.cursors import encode
from service.admin.identity import Refused
from service.core.sheet import ACTION_COLUMNS
from service.web.page.visit import Visit, action_cursor_in, day_in, wants_csv

PAGE = 50
MAX_EXPORTED = 10_000
"""The maximum number of rows of a CSV file."""
OUTCOMES: tuple[ActionOutcome, ...] = get_args(ActionOutcome)
ACTIONS = (
    "request_run",
    "cancel_run",
    "sync_pair",
    "sync_user",
    "replay_letters",
    "discard_letters",
    "erase_user",
    "sign_in",
    "read",
    "read_audit",
)
"""The kinds that the form offers. The log may contain others."""


async def list_audit(visit: Visit) -> Response:
    """Show rows of the audit log, the newest first."""
    wanted = _filter(visit)
    if wants_csv(visit.query):
        found = await list_actions(visit.engine, visit.who, wanted, limit=MAX_EXPORTED)
        rows = ([row[name] for name in ACTION_COLUMNS] for row in map(asdict, found))
        return visit.csv("audit", ACTION_COLUMNS, rows)
    before = action_cursor_in(visit.query)
    found = await list_actions(visit.engine, visit.who, wanted, limit=PAGE + 1, before=before)
    return visit.show(
        "audit.html",
        rows=found[:PAGE],
        wanted=wanted,
        actions=ACTIONS,
        outcomes=OUTCOMES,
        older=encode(found[PAGE - 1].at, found[PAGE - 1].id) if len(found) > PAGE else None,
        first=before == NEWEST_ACTION,
    )


def _filter(visit: Visit) -> ActionFilter:
    query = visit.query
    outcome = query.get("outcome") or None
    if outcome is not None and outcome not in OUTCOMES:
        raise Refused(f"There is no such outcome. Use one of {', '.join(OUTCOMES)}.")
    subject, action = (query.get(name, "").strip() or None for name in ("subject", "action"))
    return ActionFilter(day_in(query, "since"), subject, action, outcome)
