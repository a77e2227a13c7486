"""PostgreSQL for tests, which outlives no crash of the machine and so need not wait for the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

POSTGRES_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
}


def system_programs(root: Path = Path("/usr/lib/postgresql")) -> Path | None:
    """Find the newest PostgreSQL server that the system has, None without one."""
    packaged = sorted(root.glob("*/bin/postgres"), key=lambda program: float(program.parts[-3]))
    found = packaged[-1] if packaged else shutil.which("postgres")
    return Path(found).parent if found else None
