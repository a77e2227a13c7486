"""Compare all ranges with the statement of a run, on one connection, again and again until it is stopped."""

from __future__ import annotations

import uvloop
from sqlalchemy import text

from service.levels import read_curriculum
from service.reconcile import sql
from service.reconcile.steps import ROWS_A_RANGE
from service.settings import load_settings
from service.store.engine import make_engine


async def _scan() -> None:
    engine = make_engine(load_settings(), pool_size=1)
    compare = text(sql.compare_range(None))
    after = 0
    while True:
        async with engine.begin() as conn:
            upto = (await conn.execute(sql.NEXT_BOUNDARY, {"after": after, "rows": ROWS_A_RANGE})).scalar()
            last = upto or (await conn.execute(sql.LAST_USER)).scalar_one()
            await conn.execute(compare, {"after": after, "upto": last, **(await read_curriculum(conn)).parameters})
        after = upto or 0


if __name__ == "__main__":
    uvloop.run(_scan())
