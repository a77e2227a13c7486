"""Store figures: a file for each part in bench/results/, and all tables in BENCH.md."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import jars
from bench.load import SEED
from bench.sizes import Sizes
from bench.table import Row, as_markdown
from tests.support import apache_kafka

_ROOT = Path(__file__).parents[1]
RESULTS = _ROOT / "bench" / "results"
DOCUMENT = _ROOT / "BENCH.md"
_TABLES = re.compile(r"(<!-- tables -->\n).*(\n<!-- end -->)", re.DOTALL)


def part(name: str, title: str, sizes: Sizes, rows: Sequence[Row]) -> None:
    """Store the rows of a part with the time, the machine and the sizes."""
    RESULTS.mkdir(exist_ok=True)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    kept = {"title": title, "at": at, "machine": machine(), "sizes": asdict(sizes), "rows": [r.as_dict() for r in rows]}
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def document(parts: Iterable[str]) -> None:
    """Write the tables of all parts between the markers in BENCH.md."""
    kept = [json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in parts]
    tables = "\n\n".join([_where(kept[-1]), *map(_section, kept)])
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(_TABLES.sub(lambda found: f"{found[1]}{tables}{found[2]}", text), encoding="utf-8")


def machine() -> str:
    """Return cores, processor and versions in one sentence."""
    postgres = subprocess.run([_postgres(), "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
    return (
        f"{os.cpu_count()} cores ({_processor()}), {platform.system()}, Python {platform.python_version()}, "
        f"PostgreSQL {postgres}, Apache Kafka {apache_kafka.VERSION}, Debezium {jars.version('debezium')}"
    )


def _where(kept: dict[str, Any]) -> str:
    return f"{kept['at']}, seed {SEED}: {kept['machine']}."


def _section(kept: dict[str, Any]) -> str:
    return f"### {kept['title']}\n\n{as_markdown([Row(**row) for row in kept['rows']])}"


def _postgres() -> str:
    from service.local.postgres import _wheel_programs  # noqa: PLC0415 - only to ask its version

    return str(_wheel_programs() / "postgres")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()
