"""PostgreSQL for tests.

It outlives no crash of the machine, so it need not wait for the disk. It outlives its own crash: `synchronous_commit`
stays on, because without it a `kill -9` takes back what was committed a moment ago.
"""

from __future__ import annotations

import shutil
from pathlib import Path

POSTGRES_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
}


def system_programs(root: Path = Path("/usr/lib/postgresql")) -> Path | None:
    """Find the newest PostgreSQL server that the system has, None without one."""
    packaged = sorted(root.glob("*/bin/postgres"), key=lambda program: float(program.parts[-3]))
    found = packaged[-1] if packaged else shutil.which("postgres")
    return Path(found).parent if found else None
