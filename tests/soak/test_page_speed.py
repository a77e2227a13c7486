"""How long the page takes with a million pairs, 100,000 dead letters, 50,000 issues and two days of samples."""

from __future__ import annotations

import time
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from service.web.page.session import SESSION
from tests.support.api import serving
from tests.support.tokens import token

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]
BOUND = 0.25
"""Seconds within which 95 of 100 requests are answered while other tests run beside it.

The aim on a quiet machine is 0.1: docs/performance.md has the figures."""
REQUESTS = 100
RUN = UUID(int=9)
PAGES = (
    "/",
    "/page/trends",
    "/page/runs",
    f"/page/runs/{RUN}",
    f"/page/runs/{RUN}?sort=difference",
    "/page/users/5000",
    "/page/users?q=user77",
    "/page/dead-letters",
    "/page/dead-letters?reason=invalid",
    "/page/dead-letters/500",
    "/page/audit",
)
_FILL = (
    "INSERT INTO users (id, email, name) SELECT n, 'user' || n || '@x.org', 'N' FROM generate_series(1000, 334333) n",
    """
    INSERT INTO specialization_progress (student_id, specialization_id, current_level, total_xp)
    SELECT n, s, 2, 10 FROM generate_series(1000, 334333) n, unnest(ARRAY['PLAYER', 'COACH', 'INTERNSHIP']) s
    """,
    """
    INSERT INTO user_licenses (user_id, specialization_type, current_level, max_achieved_level, started_at)
    SELECT n, s, 2, 2, now() FROM generate_series(1000, 334333) n, unnest(ARRAY['PLAYER', 'COACH', 'INTERNSHIP']) s
    """,
    """
    INSERT INTO levelsync.dead_letters
           (topic, partition, "offset", record_timestamp, key, value, headers, reason, detail)
    SELECT 'progress.leveled-up', n % 8, n, 1700000000000, convert_to(n::text, 'UTF8'),
           convert_to(format('{"user_id": %s, "specialization": "PLAYER", "to_level": 3}', n), 'UTF8'),
           '[{"key": "ce_id", "value": "1"}]', (ARRAY['invalid', 'unknown_user', 'bad_time', 'malformed'])[1 + n % 4],
           'a sentence about what is wrong with it'
      FROM generate_series(1, 100000) n
    """,
    f"""
    INSERT INTO levelsync.reconcile_runs (id, status, step, direction, dry_run, force, finished_at, counts)
    VALUES ('{RUN}', 'completed', 'done', 'progress_to_license', true, false, now(),
            '{{"scanned": 1000000, "mismatched": 50000, "lowered": 10000}}')
    """,
    f"""
    INSERT INTO levelsync.drift_issues (run_id, user_id, specialization, kind, progress_level, license_level, status)
    SELECT '{RUN}', 1000 + n, 'PLAYER', 'mismatched', 2 + n % 3, 3, 'confirmed' FROM generate_series(1, 50000) n
    """,
    """
    INSERT INTO levelsync.minute_samples
    SELECT date_trunc('minute', now()) - n * interval '1 minute',
           jsonb_build_object('progress.leveled-up.v1 applied', n, 'progress.leveled-up.v1 equal', 5,
                              'license.advanced.v1 created', 7, 'license.advanced.v1 dead_lettered', 1),
           jsonb_build_object('progress.leveled-up.v1 0.05', n, 'progress.leveled-up.v1 0.25', 9,
                              'license.advanced.v1 0.1', 7, 'license.advanced.v1 +Inf', 1),
           n % 500, 3, 100000
      FROM generate_series(1, 2880) n
    """,
    """
    INSERT INTO levelsync.admin_actions (subject, role, action, arguments, outcome)
    SELECT '1', 'admin', 'sync_pair', '{"user_id": 5}', 'done' FROM generate_series(1, 20000)
    """,
)


async def test_the_page_answers_within_a_quarter_of_a_second(settings: Settings, engine: AsyncEngine) -> None:
    async with engine.begin() as conn:
        await conn.execute(text("SET LOCAL statement_timeout = 0"))
        for statement in _FILL:
            await conn.execute(text(statement.replace(":", "\\:")) if "{" in statement else text(statement))
    async with engine.connect() as conn:
        await (await conn.execution_options(isolation_level="AUTOCOMMIT")).execute(text("VACUUM ANALYZE"))
    cookies = {SESSION: token(settings, "admin")}
    late = {}
    async with (
        serving(settings) as url,
        httpx.AsyncClient(base_url=url, cookies=cookies, timeout=30) as client,
    ):
        for page in PAGES:
            took = sorted([await _seconds(client, page) for _ in range(REQUESTS)])
            p50, p95 = took[REQUESTS // 2], took[int(REQUESTS * 0.95)]
            print(f"{page}: p50 {p50 * 1000:.0f} ms, p95 {p95 * 1000:.0f} ms")  # noqa: T201 - what was measured
            if p95 > BOUND:
                late[page] = p95
    assert late == {}


async def _seconds(client: httpx.AsyncClient, page: str) -> float:
    begun = time.perf_counter()
    answer = await client.get(page)
    assert answer.status_code == 200, (page, answer.text[:500])
    return time.perf_counter() - begun
