"""Every statement of both hot paths, with values as a batch, a range or a heal has them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import TextClause, text

from service.apply import sql as apply_sql
from service.reconcile import sql as reconcile_sql
from service.reconcile.plan import ROWS_A_RANGE
from service.sync import sql as sync_sql
from tests.plans.tables import ROWS

_BATCH = 5000
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def statements() -> Iterator[tuple[str, TextClause]]:
    """All that the modules declare, by their names: a new one is looked at without being asked for."""
    yield from _declared("apply", apply_sql)
    yield from _declared("reconcile", reconcile_sql)
    yield "reconcile.compare_range", text(reconcile_sql.compare_range(None))
    yield "reconcile.compare_range_of_one", text(reconcile_sql.compare_range("PLAYER"))
    yield "sync.SET_FENCES", sync_sql.SET_FENCES


def _declared(part: str, module: object) -> Iterator[tuple[str, TextClause]]:
    for name, value in vars(module).items():
        if isinstance(value, TextClause):
            yield f"{part}.{name}", value


def values_for(statement: TextClause) -> dict[str, Any]:
    """A value for every parameter: `_BATCH` of its type where it is an array, else by its name (NULL by any other)."""
    arrays = {name: _OF_TYPE[kind] for name, kind in _ARRAY.findall(statement.text)}
    return {name: arrays.get(name, _BY_NAME.get(name)) for name in statement.compile().params}


_ARRAY = re.compile(r"CAST\(:(\w+) AS (\w+)\[\]\)")
_NUMBERS = list(range(1, ROWS, ROWS // _BATCH))
_OF_TYPE: dict[str, list[Any]] = {
    "int": _NUMBERS,
    "bigint": _NUMBERS,
    "text": ["PLAYER"] * _BATCH,
    "timestamptz": [_NOW] * _BATCH,
    "bytea": [b"{}"] * _BATCH,
    "jsonb": ["[]"] * _BATCH,
    "uuid": [uuid.UUID(int=1)] * _BATCH,
}
_BY_NAME: dict[str, Any] = {
    "id": uuid.UUID(int=1),
    "user": 1,
    "user_id": 1,
    "specialization": "PLAYER",
    "topic": "progress.leveled-up",
    "partition": 0,
    "offset": 1,
    "next_offset": 1,
    "timestamp": 1,
    "value": b"{}",
    "cluster_id": "",
    "topic_id": "",
    "leader_epoch": -1,
    "advanced_by": 1,
    "decided_at": _NOW,
    "decided_by": "",
    "after": ROWS // 2,
    "upto": ROWS // 2 + ROWS_A_RANGE,
    "rows": ROWS_A_RANGE,
    "chunk": 1,
    "phase": 1,
    "older": 60.0,
    "most": 1000,
    "limit": 100,
    "maxima_of": ["COACH", "INTERNSHIP", "PLAYER"],
    "maxima": [8, 3, 8],
    "suspects": "[]",
    "suspect_count": 0,
    "counts": "{}",
    "ends": "{}",
    "topic_ids": "{}",
    "patience": 60.0,
    "step": "scan",
    "status": "running",
    "detail": "",
    "direction": "highest",
    "dry_run": True,
    "force": False,
}
