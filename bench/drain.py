"""How fast one `levelsync serve --roles apply` drains a full topic: `make bench` (bench/README.md).

Exit codes: 0 the tables are the model's, 1 they are not, 3 there is no Apache Kafka here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from checking import check
from measuring import Meter
from servers import new_folder, servers

from service.settings import Settings
from tests.infrastructure import apache_kafka
from tests.infrastructure.bulk import fill
from tests.infrastructure.levelsync_process import LevelsyncProcess
from tests.laws.load import Load, Slot, by_slot, encode, make_load
from tests.laws.model import LEVELED_UP, Meant

RESULTS = Path(__file__).parent / "results"
EVENTS_A_USER = 6


def main() -> int:
    """Measure, check, print, and keep the figures in bench/results/."""
    options = _options()
    if reason := apache_kafka.unavailable():
        print(f"no Apache Kafka to measure with: {reason}", file=sys.stderr)
        return 3
    figures = asyncio.run(_measure(options.events))
    _keep(figures)
    print(json.dumps(figures) if options.json else _as_text(figures))
    return 0 if figures["correct"] else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=300_000, help="records in the topic; a sixth as many users")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON document")
    return parser.parse_args()


async def _measure(events: int) -> dict[str, Any]:
    load = Load(events, max(1, events // EVENTS_A_USER), seed=1, kinds=(LEVELED_UP,))
    slots = by_slot(make_load(load))
    with new_folder() as name:
        folder = Path(name)
        _log(f"starting Apache Kafka {apache_kafka.VERSION} and PostgreSQL")
        async with servers(folder, load.users) as (settings, postgres):
            began = time.monotonic()
            await fill(settings.kafka_bootstrap_servers, encode(slots))
            _log(f"published {events:,} events in {time.monotonic() - began:.1f} s")
            figures = await _drain(settings, postgres, slots, folder)
            _log("comparing the tables with the model")
            figures |= await check(settings, slots, load.users)
    return {"at": datetime.now(UTC).isoformat(timespec="seconds"), "events": events, "users": load.users} | figures


async def _drain(settings: Settings, postgres: Any, slots: dict[Slot, list[Meant]], folder: Path) -> dict[str, Any]:
    process = LevelsyncProcess(settings, folder, ("serve", "--roles", "apply"))
    try:
        await process.start()
        async with Meter(settings, process, postgres) as meter:
            return await meter.until_reached({slot: len(meant) for slot, meant in slots.items()})
    finally:
        process.stop()
        _keep_log(process.output)


def _keep(figures: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    name = f"drain-{figures['at'].replace(':', '')}.json"
    (RESULTS / name).write_text(json.dumps(figures | machine, indent=2) + "\n", encoding="utf-8")


def _keep_log(output: str) -> None:
    """The worker's own lines of the last run: one a batch, with its size and its time."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "drain.log").write_text(output, encoding="utf-8")


def _as_text(figures: dict[str, Any]) -> str:
    rows = {
        "events/s": f"{figures['events_per_second']:,.0f}",
        "drained": f"{figures['drained']:,} events in {figures['seconds']:.2f} s",
        "CPU of levelsync": f"{figures['worker_cpu_per_100k']:.2f} s per 100,000 events",
        "CPU of PostgreSQL": f"{figures['postgres_cpu_per_100k']:.2f} s per 100,000 events",
        "peak memory": f"{figures['peak_memory_mb']:.1f} MB",
        "wrong levels": f"{figures['wrong_levels']} of {figures['pairs']:,}",
        "history rows": f"{figures['history_rows']:,}, the model's" if figures["history_equal"] else "DIFFERENT",
        "dead letters": f"{figures['dead_letters']}",
    }
    return "\n".join(f"{name:<18}{value}" for name, value in rows.items())


def _log(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
