"""A statement's plan, and what must not be in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.plans.tables import BIG

Plan = dict[str, Any]
_PARAMETER = re.compile(r"\$(\d+)")
_BIG = {table.partition(".")[2] for table in BIG}


async def plan_for(conn: AsyncConnection, statement: TextClause, values: Mapping[str, Any]) -> Plan:
    """The plan for these very values: the first five executions of a prepared statement have it."""
    explained = text(f"EXPLAIN (FORMAT JSON) {statement.text}")
    return _plan((await conn.execute(explained, dict(values))).scalar_one())


async def generic_plan(conn: AsyncConnection, statement: TextClause) -> Plan:
    """The plan for any values: a prepared statement may have it from the sixth execution on."""
    numbered = str(statement.compile(dialect=dialect()))  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it so
    count = max((int(number) for number in _PARAMETER.findall(numbered)), default=0)
    nulls = f"({', '.join(['NULL'] * count)})" if count else ""
    raw: Any = (await conn.get_raw_connection()).driver_connection
    await raw.execute("SET plan_cache_mode = force_generic_plan")
    await raw.execute(f"PREPARE of_the_service AS {numbered}")
    return _plan(await raw.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE of_the_service {nulls}"))


def _plan(found: Any) -> Plan:
    document = json.loads(found) if isinstance(found, str) else found
    plan: Plan = document[0]["Plan"]
    return plan


def faults(plan: Plan) -> list[str]:
    """Sequential scans of a big table, whole scans of its indexes, and nested loops over its rows."""
    return [fault for node, above in _nodes(plan, ()) if (fault := _fault(node, above))]


def _fault(node: Plan, above: tuple[Plan, ...]) -> str:
    kind, table = node["Node Type"], node.get("Relation Name", "")
    if kind == "Seq Scan" and table in _BIG:
        return f"sequential scan of {table}"
    if kind in {"Index Scan", "Index Only Scan"} and table in _BIG and "Index Cond" not in node and not _limited(above):
        return f"scan of a whole index of {table}"
    if kind == "Nested Loop" and node["Plans"][1]["Node Type"] != "Memoize":  # which remembers what it looked up
        outer, inner = (_big_tables(side) for side in node["Plans"])
        return f"nested loop over {', '.join(sorted(outer))}" if outer and inner else ""
    return ""


def _big_tables(plan: Plan) -> set[str]:
    """A look-up in a table of a few rows, such as `specializations`, is as good as any join."""
    return {str(node.get("Relation Name")) for node, _ in _nodes(plan, ())} & _BIG


def _limited(above: tuple[Plan, ...]) -> bool:
    """Whether only the first rows are taken."""
    return any(node["Node Type"] == "Limit" for node in above)


def _nodes(plan: Plan, above: tuple[Plan, ...]) -> Iterator[tuple[Plan, tuple[Plan, ...]]]:
    yield plan, above
    for child in plan.get("Plans", ()):
        yield from _nodes(child, (plan, *above))
