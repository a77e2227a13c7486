"""Create the stored functions through which every level is written, for the application's current tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.resources import files

from sqlalchemy import Connection, text

from service.store.application import NEEDED

CREATED_FOR_OTHER_TABLES = "The stored functions were created for other tables than the application has now"

_COLUMNS = text("""
    SELECT a.attname AS name, format_type(t.oid, NULL) AS type, t.typtype = 'e' AS is_enum
      FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
     WHERE a.attrelid = to_regclass(:table) AND a.attnum > 0 AND NOT a.attisdropped
""")
_QUALIFIED = text("""
    SELECT format('%I.%I', n.nspname, c.relname)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(:table)
""")
_HAS_CHILDREN = text("SELECT relkind = 'p' OR relhassubclass FROM pg_class WHERE oid = to_regclass(:table)")
_OURS = text("""
    SELECT CAST(CAST(p.oid AS regprocedure) AS text) FROM pg_proc p
     WHERE p.pronamespace = to_regnamespace('levelsync') AND p.proname LIKE '%\\_v1'
""")
_FACTS = text("""
    SELECT CAST(t.name AS text) AS name,
           format('%I.%I', n.nspname, c.relname)
           || CASE WHEN c.relkind = 'p' OR c.relhassubclass THEN ' with partitions' ELSE '' END AS fact
      FROM unnest(CAST(:tables AS text[])) AS t (name)
      JOIN pg_class c ON c.oid = to_regclass(t.name) JOIN pg_namespace n ON n.oid = c.relnamespace
     UNION ALL
    SELECT format('%s.%s', t.name, a.attname), format_type(a.atttypid, NULL)
      FROM unnest(CAST(:tables AS text[])) AS t (name)
      JOIN pg_attribute a ON a.attrelid = to_regclass(t.name) AND a.attnum > 0 AND NOT a.attisdropped
""")
_RECORDED_FACTS = text("""
    SELECT obj_description(CAST(f.oid AS oid), 'pg_proc')
      FROM (SELECT to_regprocedure('levelsync.curriculum_v1()') AS oid) f WHERE f.oid IS NOT NULL
""")
_IS_TABLE = text("SELECT relkind = 'r' FROM pg_class WHERE oid = to_regclass('specializations')")
_VERSIONS = """(SELECT coalesce((SELECT a.xmin::text FROM pg_catalog.pg_attribute a
                  WHERE a.attrelid = '{0}'::regclass AND a.attname = 'max_levels'), 'none')
                || ',' || string_agg(s.xmin::text, ',') || ':' FROM {0} s)"""
"""The versions of the column `max_levels` and of the rows. Dropping or adding a column changes no row's version."""
_NO_VERSIONS = "(extract(epoch FROM clock_timestamp())::text || ':')"
"""The rows of a view have no versions, so its contents are always compared."""
_NAIVE = "timestamp without time zone"
_ROWS = "unnest({ids}, {users}, {specs}, {levels}, {created}, {advanced}) WITH ORDINALITY"
_STATIC = {
    "ids": "p_ids",
    "users": "p_users",
    "specs": "p_specs",
    "names": "p_names",
    "levels": "p_levels",
    "created": "p_created",
    "advanced": "p_advanced",
}
_NUMBERED = {name: f"${number}" for number, name in enumerate(("ids", "users", "specs", "names", "levels"), 1)}
_NUMBERED |= {"created": "$6", "advanced": "$7"}
_PLACED = """LOOP
                    pair := pair + 1;
                    EXIT WHEN pair > cardinality(p_ids) OR p_ids[pair] = 0;
                END LOOP;
                IF r.user_id = p_users[pair] AND r.level = p_levels[pair]
                   AND r.folded = upper(p_names[p_specs[pair]] COLLATE "C") THEN
                    made[pair] := r.id;
                    done := done + 1;
                END IF;"""
_HISTORY = """IF cardinality(p_rises) > 0 AND p_by IS NULL THEN
        INSERT INTO {table} (user_license_id, from_level, to_level, advancement_reason, advanced_at)
        SELECT made[h.pair], h.before, h.after, h.reason, {at}
          FROM unnest(p_rises, p_from, p_to, p_reasons, p_times) AS h (pair, before, after, reason, at);
    ELSIF cardinality(p_rises) > 0 THEN
        INSERT INTO {table} (user_license_id, from_level, to_level, advancement_reason, advanced_at, advanced_by)
        SELECT made[h.pair], h.before, h.after, h.reason, {at}, p_by
          FROM unnest(p_rises, p_from, p_to, p_reasons, p_times) AS h (pair, before, after, reason, at);
    END IF;"""


def create_v1(conn: Connection) -> None:
    """Create or replace every function of version 1 for the tables that the search_path finds."""
    shared = {name: _qualified(conn, name) for name in ("users", "specializations")}
    shared["versions"] = _VERSIONS.format(shared["specializations"]) if conn.scalar(_IS_TABLE) else _NO_VERSIONS
    for script, names in (
        ("shared_v1.sql", {}),
        ("levels_v1.sql", _licenses(conn)),
        ("levels_v1.sql", _progress(conn)),
    ):
        for statement in _render(script, shared | names).split("CREATE OR REPLACE")[1:]:
            conn.exec_driver_sql(f"CREATE OR REPLACE{statement}")
    comment = json.dumps(_facts(conn), sort_keys=True).replace("'", "''")
    conn.exec_driver_sql(f"COMMENT ON FUNCTION levelsync.curriculum_v1() IS '{comment}'")


def changes_since_v1(conn: Connection) -> list[str]:
    """Return how the application's tables differ from those that the functions were created for, a sentence for each.

    A comment on one of the functions contains each table's name with its schema, and the types of the columns that
    levelsync uses. Missing functions, and functions without that comment, count as a difference.
    """
    found = conn.execute(_RECORDED_FACTS).one_or_none()
    if found is None:
        return ["the functions do not exist"]
    made_for = _parsed(found[0])
    if not made_for:
        return ["it is not recorded for which tables the functions were created"]
    return [
        f"{name} was {made_for.get(name, 'missing')} and is {fact}"
        for name, fact in _facts(conn).items()
        if made_for.get(name) != fact
    ]


def _facts(conn: Connection) -> dict[str, str]:
    """Return what the functions depend on: the application's tables with their schemas, and their columns' types."""
    used = {*NEEDED, *(f"{table}.{column}" for table, columns in NEEDED.items() for column in columns)}
    rows = conn.execute(_FACTS, {"tables": list(NEEDED)})
    return {row.name: row.fact for row in rows if row.name in used}


def _parsed(comment: str | None) -> dict[str, str]:
    try:
        made_for = json.loads(comment or "")
    except ValueError:
        return {}
    return made_for if isinstance(made_for, dict) else {}


def drop_v1(conn: Connection) -> None:
    """Drop every function of version 1."""
    for name in conn.scalars(_OURS).all():
        conn.exec_driver_sql(f"DROP FUNCTION {name}")


def _licenses(conn: Connection) -> dict[str, str]:
    history = _qualified(conn, "license_progressions")
    at = _writer(conn, "user_licenses")
    columns = {
        "current_level": "v.level",
        "max_achieved_level": "v.level",
        "started_at": at("started_at", _time("v.created")),
        "last_advanced_at": at("last_advanced_at", _time("v.advanced")),
        "created_at": at("created_at", "clock_timestamp()"),
        "updated_at": at("updated_at", "clock_timestamp()"),
    }
    updates = {name: columns[name] for name in ("current_level", "last_advanced_at", "updated_at")}
    updates["max_achieved_level"] = "greatest(t.max_achieved_level, v.level)"
    in_history = _writer(conn, "license_progressions")("advanced_at", _time("h.at"))
    return _table(conn, "user_licenses", ("user_id", "specialization_type"), columns, updates) | {
        "target": "license",
        "watched": _watched(conn, "user_licenses", "license_progressions"),
        "history": _HISTORY.format(table=history, at=in_history),
    }


def _progress(conn: Connection) -> dict[str, str]:
    at = _writer(conn, "specialization_progress")
    nothing_yet = ("total_xp", "completed_sessions", "completed_projects")
    hours = ("theory_hours_completed", "practice_hours_completed")
    columns = {
        "current_level": "v.level",
        **dict.fromkeys((*nothing_yet, *hours), "0"),
        "last_activity": at("last_activity", _time("v.advanced")),
        "created_at": at("created_at", "clock_timestamp()"),
        "updated_at": at("updated_at", "clock_timestamp()"),
    }
    updates = {name: columns[name] for name in ("current_level", "last_activity", "updated_at")}
    names = _table(conn, "specialization_progress", ("student_id", "specialization_id"), columns, updates)
    return names | {"target": "progress", "watched": _watched(conn, "specialization_progress"), "history": ""}


def _watched(conn: Connection, *tables: str) -> str:
    """Return SQL for the tables whose triggers may write. It includes the partitions that exist at each call."""
    names = ", ".join(f"'{_qualified(conn, table)}'::regclass" for table in tables)
    if not any(conn.scalar(_HAS_CHILDREN, {"table": table}) for table in tables):
        return names
    return f"""
        WITH RECURSIVE watched (oid) AS (
            SELECT t.oid FROM pg_catalog.pg_class t WHERE t.oid IN ({names})
             UNION
            SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN watched w ON w.oid = i.inhparent)
        SELECT w.oid FROM watched w"""


def _table(
    conn: Connection, table: str, key: tuple[str, str], columns: Mapping[str, str], updates: Mapping[str, str]
) -> dict[str, str]:
    """Return the statements of one table. `key` contains the names of its user and specialization columns."""
    qualified, (user, name) = _qualified(conn, table), key
    folded = f'upper(t.{name}::text COLLATE "C")'
    found = f"""t.{user} = k.user_id AND {folded} = upper(p_names[k.spec] COLLATE "C")"""
    insert = _insert(conn, table, key, columns)
    return {
        "table": qualified,
        "find": f"""SELECT t.id, t.current_level AS level, t.{name}::text <> p_names[k.spec] AS other_case
                      FROM {qualified} t WHERE {found}
                     ORDER BY t.{name}::text = p_names[k.spec] DESC, t.{name}::text COLLATE "C", t.id LIMIT 1""",
        "find_exact": f"""SELECT t.id, t.current_level INTO id, level FROM {qualified} t
             WHERE t.{user} = p_users[1] AND t.{name}::text = p_names[p_specs[1]]""",
        "find_one": f"""SELECT t.id, t.current_level, t.{name}::text <> p_names[p_specs[1]]
              INTO id, level, in_other_case
              FROM {qualified} t
             WHERE t.{user} = p_users[1] AND {folded} = upper(p_names[p_specs[1]] COLLATE "C")
             ORDER BY t.{name}::text = p_names[p_specs[1]] DESC, t.{name}::text COLLATE "C", t.id LIMIT 1""",
        "update": f"""
            WITH written AS (
                UPDATE {qualified} AS t SET {_assignments(updates)}
                  FROM unnest($1, $2, $3, $4, $5) AS v (id, level, advanced, user_id, spec)
                 WHERE v.id > 0 AND t.id = v.id
             RETURNING t.current_level = v.level AND t.{user} = v.user_id
                   AND {folded} = upper($6[v.spec] COLLATE "C") AS as_decided)
            SELECT count(*) FILTER (WHERE as_decided) FROM written""",
        "update_one": f"""UPDATE {qualified} AS t
               SET {_assignments(updates).replace("v.level", "p_levels[1]").replace("v.advanced", "p_advanced[1]")}
             WHERE t.id = p_ids[1]
            RETURNING (t.current_level = p_levels[1] AND t.{user} = p_users[1]
                       AND {folded} = upper(p_names[p_specs[1]] COLLATE "C"))::integer INTO done;
            done := coalesce(done, 0);""",
        "insert": insert.format(extra="", values="", source="", **_STATIC),
        "insert_with_defaults": insert.format(
            extra="%1$s",
            values="%2$s",
            source=f" CROSS JOIN jsonb_populate_record(NULL::{qualified}, $8) AS d",
            **_NUMBERED,
        ),
        "placed": _PLACED,
    }


def _insert(conn: Connection, table: str, key: tuple[str, str], columns: Mapping[str, str]) -> str:
    """Return the INSERT of missing rows, in the order of the pairs, as a template for its parameters."""
    user, name = key
    kinds = {row.name: row for row in conn.execute(_COLUMNS, {"table": table})}
    cast = f"::{kinds[name].type}" if kinds[name].is_enum else ""
    return f"""
            INSERT INTO {_qualified(conn, table)} AS t ({user}, {name}, {", ".join(columns)}{{extra}})
            SELECT v.user_id, ({{names}})[v.spec]{cast}, {", ".join(columns.values())}{{values}}
              FROM {_ROWS} AS v (id, user_id, spec, level, created, advanced, pair){{source}}
             WHERE v.id = 0 ORDER BY v.pair
         RETURNING t.id, t.{user} AS user_id, upper(t.{name}::text COLLATE "C") AS folded, t.current_level AS level"""


def _assignments(updates: Mapping[str, str]) -> str:
    return ", ".join(f"{column} = {value}" for column, value in updates.items())


def _time(microseconds: str) -> str:
    return f"(timestamptz '1970-01-01 00:00:00+00' + {microseconds} * interval '1 microsecond')"


class _writer:  # noqa: N801 - used as a function
    """Returns the SQL of a time for a column of a table, in UTC if the column has no time zone."""

    def __init__(self, conn: Connection, table: str) -> None:
        self._naive = {row.name for row in conn.execute(_COLUMNS, {"table": table}) if row.type == _NAIVE}

    def __call__(self, column: str, value: str) -> str:
        return f"({value} AT TIME ZONE 'UTC')" if column in self._naive else value


def _qualified(conn: Connection, table: str) -> str:
    found: str = conn.execute(_QUALIFIED, {"table": table}).scalar_one()
    return found


def _render(script: str, names: Mapping[str, str]) -> str:
    """Replace the names in a script. Longer values come first, because a value may contain other names."""
    body = files("service.store").joinpath(script).read_text(encoding="utf-8")
    for name, value in _longest_first(names.items()):
        body = body.replace(f"@{name}@", value)
    return body


def _longest_first(names: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return sorted(names, key=lambda pair: -len(pair[1]))
