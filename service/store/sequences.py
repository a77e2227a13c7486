"""A primary key whose sequence is behind its table: every insert collides until somebody sets it."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_KEYS = text("""
    SELECT format('%I.%I', n.nspname, c.relname) AS table_name, quote_ident(a.attname) AS column_name,
           CAST(CAST(s.oid AS regclass) AS text) AS sequence
      FROM pg_index i
      JOIN pg_class x ON x.oid = i.indexrelid
      JOIN pg_class c ON c.oid = i.indrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
      JOIN pg_depend d ON d.refclassid = CAST('pg_class' AS regclass) AND d.deptype IN ('a', 'i', 'n')
      JOIN pg_class s ON s.relkind = 'S'
      LEFT JOIN pg_attrdef f ON f.adrelid = c.oid AND f.adnum = a.attnum
     WHERE i.indisprimary AND i.indnkeyatts = 1 AND x.relname = :index
       AND ((d.objid = s.oid AND d.refobjid = c.oid AND d.refobjsubid = a.attnum)
            OR (d.classid = CAST('pg_attrdef' AS regclass) AND d.objid = f.oid AND d.refobjid = s.oid))
""")


async def behind(conn: AsyncConnection, index: str) -> str:
    """Say how to repair the sequence of a primary key of this name that is behind its table; '' where none is."""
    for table, column, sequence in (await conn.execute(_KEYS, {"index": index})).all():
        found = await conn.execute(text(f"SELECT s.last_value, (SELECT max({column}) FROM {table}) FROM {sequence} s"))
        last, greatest = found.one()
        if greatest is not None and last < greatest:
            return (
                f"the sequence {sequence} stands at {last}, below the greatest {column} of {table}, {greatest}: "
                f"SELECT setval('{sequence}', (SELECT max({column}) FROM {table}))"
            )
    return ""
