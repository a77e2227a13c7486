"""Tables that the planner sees as five million rows, the statements of both hot paths, and their plans."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.apply import dead_letters as apply_sql
from service.apply import rows
from service.reconcile import sql as reconcile_sql
from service.reconcile.steps import ROWS_A_RANGE
from service.stream import positions as apply_positions

ROWS = 5_000_000
BIG = {
    "public.users": "id, name, email, role) SELECT g, 'User', g || '@example.org', 'student'",
    "public.specialization_progress": "student_id, specialization_id, current_level) SELECT g, 'PLAYER', 1 + g % 8",
    "public.user_licenses": (
        "user_id, specialization_type, current_level, max_achieved_level, started_at) "
        "SELECT g, 'PLAYER', 1 + g % 8, 8, now()"
    ),
    "levelsync.fences": "user_id, specialization, decided_at, level) SELECT g, 'PLAYER', now(), 1",
}
"""The tables that grow with the users, and the columns and values of their rows."""
_SPARSE = 10
"""How full a page is, in percent; less is not possible."""
ONE_IN = 20
"""Rows of five million for one that is made: half of the pages are then there, which makes a sequential scan seem
cheaper than it is, never dearer."""


async def make_big(engine: AsyncEngine, one_in: int) -> None:
    """Fill the tables with every Nth row of `ROWS`, on sparse pages where N is not 1."""
    full = 100 if one_in == 1 else _SPARSE
    async with engine.begin() as conn:
        await conn.execute(text("SET LOCAL session_replication_role = replica"))
        await conn.execute(text("SET LOCAL statement_timeout = 0"))
        for table, columns in BIG.items():
            await conn.execute(text(f"TRUNCATE {table} CASCADE"))
            await conn.execute(text(f"ALTER TABLE {table} SET (fillfactor = {full}, autovacuum_enabled = false)"))
            made = f"generate_series(1, {ROWS}, {one_in}) g"
            await conn.execute(text(f"INSERT INTO {table} ({columns} FROM {made}"))
            await conn.execute(text(f"ALTER TABLE {table} RESET (fillfactor)"))


async def with_statistics(engine: AsyncEngine) -> None:
    """Set the statistics that autovacuum leaves for `ROWS` rows."""
    async with engine.begin() as conn:
        for table in BIG:
            await conn.execute(text(f"ANALYZE {table}"))
        await conn.execute(
            text("""
                UPDATE pg_class SET reltuples = :rows
                 WHERE oid = ANY(CAST(:tables AS regclass[]))
                    OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = ANY(CAST(:tables AS regclass[])))
            """),
            {"rows": ROWS, "tables": list(BIG)},
        )


async def without_statistics(engine: AsyncEngine) -> None:
    """Remove the statistics, as after a restore."""
    async with engine.begin() as conn:
        of_ours = "IN (SELECT unnest(CAST(:tables AS regclass[])))"
        await conn.execute(text(f"DELETE FROM pg_statistic WHERE starelid {of_ours}"), {"tables": list(BIG)})
        await conn.execute(
            text(f"""
                UPDATE pg_class SET reltuples = -1, relpages = 0
                 WHERE oid {of_ours} OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid {of_ours})
            """),
            {"tables": list(BIG)},
        )


Plan = dict[str, Any]
_PARAMETER = re.compile(r"\$(\d+)")
_BIG = {table.partition(".")[2] for table in BIG}


async def plan_for(conn: AsyncConnection, statement: TextClause, values: Mapping[str, Any]) -> Plan:
    """Return the plan for these values, which the first five executions of a prepared statement have."""
    explained = text(f"EXPLAIN (FORMAT JSON) {statement.text}")
    return _plan((await conn.execute(explained, dict(values))).scalar_one())


async def generic_plan(conn: AsyncConnection, statement: TextClause) -> Plan:
    """Return the plan for any values, which a prepared statement may have from the sixth execution on."""
    numbered = str(statement.compile(dialect=dialect()))  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it so
    count = max((int(number) for number in _PARAMETER.findall(numbered)), default=0)
    nulls = f"({', '.join(['NULL'] * count)})" if count else ""
    raw: Any = (await conn.get_raw_connection()).driver_connection
    await raw.execute("SET plan_cache_mode = force_generic_plan")
    await raw.execute(f"PREPARE of_the_service AS {numbered}")
    found = await raw.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE of_the_service {nulls}")
    await raw.execute("DEALLOCATE of_the_service; RESET plan_cache_mode")
    return _plan(found)


def _plan(found: Any) -> Plan:
    document = json.loads(found) if isinstance(found, str) else found
    plan: Plan = document[0]["Plan"]
    return plan


def faults(plan: Plan) -> list[str]:
    """Return the sequential scans of a big table, whole scans of its indexes, and nested loops over its rows."""
    return [fault for node, above in _nodes(plan, ()) if (fault := _fault(node, above))]


def _fault(node: Plan, above: tuple[Plan, ...]) -> str:
    kind, table = node["Node Type"], node.get("Relation Name", "")
    if kind == "Seq Scan" and table in _BIG:
        return f"sequential scan of {table}"
    if kind in {"Index Scan", "Index Only Scan"} and table in _BIG and "Index Cond" not in node and not _limited(above):
        return f"scan of a whole index of {table}"
    sides = [plan for plan in node.get("Plans", ()) if plan["Parent Relationship"] in {"Outer", "Inner"}]
    if kind == "Nested Loop" and sides[1]["Node Type"] != "Memoize":  # it caches its look-ups
        outer, inner = (_big_tables(side) for side in sides)
        return f"nested loop over {', '.join(sorted(outer))}" if outer and inner else ""
    return ""


def _big_tables(plan: Plan) -> set[str]:
    """Return the big tables in a plan. A look-up in a table of a few rows is as good as any join."""
    return {str(node.get("Relation Name")) for node, _ in _nodes(plan, ())} & _BIG


def _limited(above: tuple[Plan, ...]) -> bool:
    """Return whether a node above takes only the first rows."""
    return any(node["Node Type"] == "Limit" for node in above)


def _nodes(plan: Plan, above: tuple[Plan, ...]) -> Iterator[tuple[Plan, tuple[Plan, ...]]]:
    yield plan, above
    for child in plan.get("Plans", ()):
        yield from _nodes(child, (plan, *above))


_BATCH = 5000
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def statements() -> Iterator[tuple[str, TextClause]]:
    """Return every statement that the modules declare, by its name, so that a new one is checked too."""
    yield from _declared("apply", apply_sql)
    yield from _declared("apply", apply_positions)
    yield from _declared("reconcile", reconcile_sql)
    yield "reconcile.compare_range", text(reconcile_sql.compare_range(None))
    yield "reconcile.compare_range_of_one", text(reconcile_sql.compare_range("PLAYER"))
    for lock in ("wait", "skip", "none"):
        yield f"reconcile.progress_of_pairs_{lock}", reconcile_sql.progress_of_pairs(lock)
        yield f"reconcile.licenses_of_pairs_{lock}", reconcile_sql.licenses_of_pairs(lock)
    yield "sync.SET_FENCES", rows.SET_FENCES


def _declared(part: str, module: object) -> Iterator[tuple[str, TextClause]]:
    for name, value in vars(module).items():
        if isinstance(value, TextClause):
            yield f"{part}.{name}", value


def values_for(statement: TextClause) -> dict[str, Any]:
    """Return a value for every parameter: `_BATCH` of its type for an array, else by its name, or NULL."""
    arrays = {name: _OF_TYPE[kind] for name, kind in _ARRAY.findall(statement.text)}
    return {name: arrays.get(name, _BY_NAME.get(name)) for name in statement.compile().params}


_ARRAY = re.compile(r"CAST\(:(\w+) AS (\w+)\[\]\)")
_NUMBERS = list(range(1, ROWS, ROWS // _BATCH))
_OF_TYPE: dict[str, list[Any]] = {
    "int": _NUMBERS,
    "bigint": _NUMBERS,
    "text": ["PLAYER"] * _BATCH,
    "bytea": [b"{}"] * _BATCH,
    "jsonb": ["[]"] * _BATCH,
    "uuid": [uuid.UUID(int=1)] * _BATCH,
}
_BY_NAME: dict[str, Any] = {
    "id": uuid.UUID(int=1), "run_id": str(uuid.UUID(int=1)), "user": 1, "user_id": 1, "specialization": "PLAYER",
    "topic": "progress.leveled-up", "partition": 0, "next_offset": 1,
    "cluster_id": "", "topic_id": "", "leader_epoch": -1, "decided_at": _NOW, "decided_by": "",
    "after": ROWS // 2, "upto": ROWS // 2 + ROWS_A_RANGE, "rows": ROWS_A_RANGE, "chunk": 1, "phase": 1,
    "older": 60.0, "most": 1000, "limit": 100, "timeout": 60.0,
    "suspects": "[]", "suspect_count": 0, "counts": "{}", "ends": "{}", "topic_ids": "{}",
    "step": "scan", "status": "running", "detail": "", "direction": "highest", "dry_run": True, "force": False,
}  # fmt: skip
