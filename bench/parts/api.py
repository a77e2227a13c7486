"""API: a separate process during a drain, and the first page of the differing pairs of a large table."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from statistics import median

import httpx

from bench.load import make_records
from bench.meter import drain
from bench.pairs import fill
from bench.quantiles import quantile
from bench.servers import Servers, connect, running_servers
from bench.sizes import Sizes
from bench.systems.levelsync import LEVELSYNC, running
from bench.table import Row, ratio
from service.cli.token import sign
from service.settings import Settings

_CALLS_A_SECOND = 50
_USERS = 100_000
_PAIRS = 1_000_000
_PAGES = 10
_PATH = "/api/v1/licenses/admin/sync"
_SYNC = {"specialization": "PLAYER", "direction": "progress_to_license"}
_RAW = """
    SELECT coalesce(p.student_id, l.user_id) AS user_id, coalesce(p.specialization_id, l.specialization_type) AS name,
           p.current_level, l.current_level
      FROM public.specialization_progress p FULL OUTER JOIN public.user_licenses l
        ON l.user_id = p.student_id AND l.specialization_type = p.specialization_id
     WHERE p.current_level IS DISTINCT FROM l.current_level ORDER BY 1, 2 LIMIT 100
"""


@dataclass(frozen=True)
class _Call:
    """The milliseconds until the answer to a call, and whether the call wrote the level."""

    ms: float
    done: bool


async def run(sizes: Sizes) -> list[Row]:
    """Measure both, each round in a new process."""
    beside = [await _beside_a_drain(sizes.events) for _ in range(sizes.rounds)]
    raw, pages = await _first_pages(sizes.rounds)
    note = f"{len(beside[0])} calls, {_CALLS_A_SECOND} a second"
    return [
        Row("`POST /user/{id}` beside a drain, p50", _quantiles(beside, 0.5), "ms", note=note),
        Row("`POST /user/{id}` beside a drain, p99", _quantiles(beside, 0.99), "ms", at_most=50),
        Row("the same, not written", tuple(float(sum(not call.done for call in calls)) for calls in beside), at_most=0),
        Row(f"first page of `GET /desync-issues`, {_PAIRS:,} pairs", tuple(pages), "ms"),
        Row("raw query of the same rows", tuple(raw), "ms"),
        ratio("first page : raw query", pages, raw, at_most=1.5),
    ]


def _quantiles(rounds: Sequence[Sequence[_Call]], share: float) -> tuple[float, ...]:
    return tuple(round(quantile((call.ms for call in calls), share), 1) for calls in rounds)


async def _beside_a_drain(events: int) -> list[_Call]:
    """Sync users that the drain does not touch, for as long as it lasts. Each is synced once, and its pair differs."""
    records = make_records(events)
    async with running_servers() as servers:
        users = records.users + _USERS
        template = await servers.template(users, fill(records.users + 1, users, 1))
        await LEVELSYNC.publish(servers, records)
        settings = await _with_secret(servers, template)
        async with _client(servers, settings) as client:
            await _sync(client, users)  # opens the connections
            calling = asyncio.create_task(_call(client, records.users + 1))
            await drain(servers, settings, LEVELSYNC, records)
            calling.cancel()
            found = await calling
    print(f"{len(found)} calls, p99 {quantile((call.ms for call in found), 0.99):.1f} ms", file=sys.stderr, flush=True)
    return found


async def _call(client: httpx.AsyncClient, first: int) -> list[_Call]:
    """Call at a steady rate until cancelled, without waiting for earlier answers."""
    began, calls = time.perf_counter(), []
    try:
        for number in count():
            await asyncio.sleep(max(0.0, began + number / _CALLS_A_SECOND - time.perf_counter()))
            calls.append(asyncio.create_task(_sync(client, first + number)))
    except asyncio.CancelledError:
        return await asyncio.gather(*calls)
    raise AssertionError("counting has no end")


async def _sync(client: httpx.AsyncClient, user: int) -> _Call:
    began = time.perf_counter()
    answer = await client.post(f"{_PATH}/user/{user}", json=_SYNC)
    return _Call((time.perf_counter() - began) * 1000, done=answer.json().get("action") == "updated")


async def _first_pages(rounds: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds of the raw query and of the page, each the median of ten."""
    raw: list[float] = []
    pages: list[float] = []
    async with running_servers() as servers:
        settings = await _with_secret(servers, await servers.template(_PAIRS // 2, fill(1, _PAIRS // 2, 1000)))
        connection = await connect(settings)
        await connection.execute("SET max_parallel_workers_per_gather = 0")
        for _ in range(rounds):
            async with _client(servers, settings) as client:
                raw.append(median([await _timed(connection.fetch(_RAW)) for _ in range(_PAGES)]))
                pages.append(median([await _timed(client.get(f"{_PATH}/desync-issues")) for _ in range(_PAGES)]))
        await connection.close()
    return raw, pages


async def _timed(awaitable: object) -> float:
    began = time.perf_counter()
    found = await awaitable  # type: ignore[misc]  # a query's rows or an HTTP answer
    taken = (time.perf_counter() - began) * 1000
    rows = found.json() if isinstance(found, httpx.Response) else found
    assert len(rows) == 100, rows  # noqa: PLR2004, S101 - a page has a hundred rows
    return taken


@asynccontextmanager
async def _client(servers: Servers, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with running(servers, settings, "api") as process:
        headers = {"Authorization": f"Bearer {sign(settings, 'admin', '1', timedelta(hours=1))}"}
        async with httpx.AsyncClient(base_url=str(process.url), headers=headers, timeout=30) as client:
            yield client


async def _with_secret(servers: Servers, template: str) -> Settings:
    return await servers.new(template, jwt_secret=secrets.token_urlsafe(32))
