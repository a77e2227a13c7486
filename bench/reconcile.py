"""A reconcile of a million pairs whose worker is killed in the middle: `python bench/reconcile.py` (bench/README.md).

It starts Apache Kafka and PostgreSQL, fills both tables, damages every thousandth user, and runs `levelsync reconcile`
twice: a dry run undisturbed, then for real while the worker is killed with SIGKILL and started again. Exit code 1
unless the counts and the tables are right.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
from servers import new_folder, servers

from service.settings import Settings
from tests.infrastructure.levelsync_process import LevelsyncProcess, serve_environment

_FILL = """
    INSERT INTO public.specialization_progress (student_id, specialization_id, current_level, total_xp)
    SELECT g, s, 1 + g % 8, 0 FROM generate_series(1, {users}) g, (VALUES ('PLAYER'), ('COACH')) v (s);
    INSERT INTO public.user_licenses (user_id, specialization_type, current_level, max_achieved_level, started_at)
    SELECT g, s, 1 + g % 8, 8, now() FROM generate_series(1, {users}) g, (VALUES ('PLAYER'), ('COACH')) v (s);
    UPDATE public.user_licenses SET current_level = 1 + current_level % 8 WHERE user_id % 1000 = 0;
"""
_DIFFERENT = "SELECT count(*) FROM levelsync.pairs WHERE state <> 'in_sync'"


def main() -> int:
    """Run it; print both reports and the seconds that each took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=500_000, help="each has two pairs")
    return asyncio.run(_measure(parser.parse_args().users))


async def _measure(users: int) -> int:
    with new_folder() as name:
        async with servers(Path(name), users) as (settings, _):
            chosen = settings.model_copy(
                update={"reconcile_grace": timedelta(seconds=1), "reconcile_every": timedelta(0)}
            )
            connection = await asyncpg.connect(settings.database_url.get_secret_value())
            await connection.execute(_FILL.format(users=users))
            await connection.execute("VACUUM ANALYZE")
            worker = LevelsyncProcess(chosen, Path(name), ("serve",))
            try:
                await worker.start()
                dry = await _reconcile(chosen)
                healed = await _reconcile_and_kill(chosen, worker)
                left = await connection.fetchval(_DIFFERENT)
            finally:
                worker.stop()
                await connection.close()
    drifted = users // 1000 * 2
    right = dry["mismatched"] == healed["healed"] == drifted and dry["scanned"] == healed["scanned"] == users * 2
    _say(f"pairs still in disagreement: {left}; counts {'right' if right and not left else 'WRONG'}")
    return 0 if right and not left else 1


async def _reconcile_and_kill(settings: Settings, worker: LevelsyncProcess) -> dict[str, int]:
    running = asyncio.create_task(_reconcile(settings, "--execute"))
    await asyncio.sleep(1.2)  # in the middle of the scan: a moment, not a condition
    worker.kill()
    _say("worker killed, and started again")
    await worker.start()
    return await running


async def _reconcile(settings: Settings, *options: str) -> dict[str, int]:
    began = time.monotonic()
    command = [sys.executable, "-m", "service", "reconcile", "--direction", "highest", "--json", *options]
    process = await asyncio.create_subprocess_exec(
        *command, env=serve_environment(settings), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    report: dict[str, Any] = json.loads(output)
    counts: dict[str, int] = report["counts"]
    _say(f"{' '.join(['reconcile', *options])}: {report['status']} in {time.monotonic() - began:.1f} s, {counts}")
    return counts


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
