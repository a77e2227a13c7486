"""Store a sample of this process's metrics once a minute: the charts of the overview are drawn from them.

All processes share one row a minute. Each adds what it counted since its last sample, and the gauges keep the greatest
value: every process measures the same lag, drift and dead letters, so the greatest is the peak of that minute, and it
does not depend on the order in which processes write.

What cannot be stored because PostgreSQL is away is added to the next minute that can. It is at most what was counted
since the last sample, because no batch commits without PostgreSQL. A process that is killed loses less than a minute.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from itertools import groupby

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.telemetry import metrics

_ADD_UP = """
    (SELECT coalesce(jsonb_object_agg(added.name, added.total), '{{}}')
       FROM (SELECT one.name, sum(one.number::bigint) AS total
               FROM (SELECT * FROM jsonb_each_text(stored.{column})
                     UNION ALL SELECT * FROM jsonb_each_text(excluded.{column})) AS one (name, number)
              GROUP BY one.name) AS added)
"""
_STORE = text(f"""
    INSERT INTO levelsync.minute_samples AS stored (minute, events, delays, lag, drift, dead_letters)
    VALUES (date_trunc('minute', clock_timestamp() - interval '30 seconds'),
            CAST(:events AS jsonb), CAST(:delays AS jsonb), :lag, :drift, :dead_letters)
        ON CONFLICT (minute) DO UPDATE
       SET events = {_ADD_UP.format(column="events")}, delays = {_ADD_UP.format(column="delays")},
           lag = greatest(stored.lag, excluded.lag), drift = greatest(stored.drift, excluded.drift),
           dead_letters = greatest(stored.dead_letters, excluded.dead_letters)
""")
"""A sample is taken seconds after a minute has ended; PostgreSQL's clock says which one, the same for all processes."""


class Sampler:
    """The sampler of one process."""

    def __init__(self) -> None:
        self._events, self._delays = _events(), _delays()
        self._minute = _minute()

    async def sample(self, engine: AsyncEngine) -> None:
        """Store a sample where a minute has ended since the last one; else do nothing.

        Raises:
            Exception: the database's. Nothing is stored then, and the next sample has it all.
        """
        minute = _minute()
        if minute == self._minute:
            return
        events, delays = _events(), _delays()
        values = {
            "events": json.dumps(events - self._events),
            "delays": json.dumps(delays - self._delays),
            "lag": _sum(metrics.CONSUMER_LAG),
            "drift": _sum(metrics.DRIFT_PAIRS) or 0,
            "dead_letters": _sum(metrics.DEAD_LETTERS),
        }
        async with engine.begin() as conn:
            await conn.execute(_STORE, values)
        self._events, self._delays, self._minute = events, delays, minute


def _minute() -> int:
    return int(time.time() // 60)


def _events() -> Counter[str]:
    found = metrics.samples(metrics.EVENTS, "_total")
    return Counter({f"{labels['type']} {labels['outcome']}": int(value) for labels, value in found})


def _delays() -> Counter[str]:
    """Count the events of each bucket alone; Prometheus' buckets include those before them."""
    found: Counter[str] = Counter()
    for kind, buckets in groupby(metrics.samples(metrics.EVENT_DELAY, "_bucket"), lambda one: one[0]["type"]):
        before = 0
        for labels, value in buckets:
            found[f"{kind} {labels['le']}"] = int(value) - before
            before = int(value)
    return found


def _sum(gauge: object) -> int | None:
    """Add up a gauge's values; None where it has none yet."""
    found = [value for _, value in metrics.samples(gauge)]
    return int(sum(found)) if found else None
