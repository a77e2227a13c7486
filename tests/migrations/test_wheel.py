"""The wheel contains the migrations."""

import asyncio
import os
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

from service.store.schema import HEAD
from tests.support import application
from tests.support.repository import ROOT


async def _python(cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command, env = [sys.executable, *arguments], {**os.environ, **environment}
    options = {"cwd": cwd, "env": env, "capture_output": True, "text": True, "timeout": 60, "check": True}
    return await asyncio.to_thread(partial(subprocess.run, command, **options))


async def test_a_wheel_migrates_outside_the_checkout(url: str, tmp_path: Path) -> None:
    """A top-level `alembic` in the wheel would shadow the library."""
    await _python(ROOT, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"))
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    assert not (installed / "alembic").exists()
    assert not list(installed.rglob("*.pyc"))
    code = (
        "from service.store import migrate, schema; from service.settings import load_settings;"
        "migrate.migrate(load_settings()); print(schema.scripts_folder())"
    )
    done = await _python(tmp_path, "-c", code, PYTHONPATH=str(installed), LEVELSYNC_DATABASE_URL=url)
    assert done.stdout.strip() == str(installed / "service" / "migrations")
    assert set(application.SEED_LINES) <= set(done.stderr.splitlines())
    assert await application.value(url, "SELECT version_num FROM levelsync.alembic_version") == HEAD
