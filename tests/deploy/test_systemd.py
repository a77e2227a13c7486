"""deploy/systemd: the unit, checked and run."""

from __future__ import annotations

import asyncio
import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.local.process import free_port
from service.settings import Settings
from tests.support.process import clean, http_get
from tests.support.repository import ROOT
from tests.support.servers import Kafka
from tests.support.waiting import eventually

UNIT = ROOT / "deploy" / "systemd" / "levelsync.service"


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd is not on this machine")
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"/opt/levelsync/bin/levelsync", "/bin/true", UNIT.read_text(encoding="utf-8")))
    done = subprocess.run([program, "verify", str(unit)], capture_output=True, text=True, check=False)  # noqa: S603
    ours = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.usefixtures("topics")
async def test_the_units_commands_run_with_its_environment(
    empty_database_url: str, kafka: Kafka, settings: Settings, tmp_path: Path
) -> None:
    """Secrets are credentials, `ExecStartPre` precedes `ExecStart`, and SIGTERM ends it."""
    unit = read_unit()
    assert settings.jwt_secret is not None
    secrets = {
        "LEVELSYNC_DATABASE_URL": empty_database_url,
        "LEVELSYNC_JWT_SECRET": settings.jwt_secret.get_secret_value(),
    }
    loaded = r"^LoadCredential=(\w+):/etc/levelsync/secrets/\1$"
    assert re.findall(loaded, UNIT.read_text(encoding="utf-8"), re.MULTILINE) == list(secrets)
    for name, secret in secrets.items():
        (tmp_path / name).write_text(secret)
    port = free_port()
    environment = clean() | dict(word.split("=", 1) for word in unit["Environment"].split())
    environment |= {
        "LEVELSYNC_SECRETS_DIR": environment["LEVELSYNC_SECRETS_DIR"].replace("%d", str(tmp_path)),
        "LEVELSYNC_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "LEVELSYNC_HTTP_PORT": str(port),
    }
    before, start = (
        unit[name].replace("/opt/levelsync/bin", str(Path(sys.executable).parent)).split()
        for name in ("ExecStartPre", "ExecStart")
    )
    done = await asyncio.to_thread(
        subprocess.run, before, env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    serve = subprocess.Popen(start, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: ASYNC220, S603 - our own command
    try:
        await eventually(lambda: http_get(f"http://127.0.0.1:{port}/readyz")[0] == 200, 60)
        serve.terminate()
        assert await asyncio.to_thread(serve.wait, int(unit["TimeoutStopSec"])) == 0
    finally:
        serve.kill()
        serve.wait()


def read_unit() -> configparser.SectionProxy:
    """Return the section `Service` of the unit."""
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have capitals
    unit.read_string(UNIT.read_text(encoding="utf-8"))
    return unit["Service"]


def test_the_service_has_time_to_drain_and_wrong_settings_are_not_tried_again() -> None:
    """It stops within 10 seconds. Exit 2 needs a person."""
    service = read_unit()
    assert int(service["TimeoutStopSec"]) > 10
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("on-failure", "2")
    assert service["ExecStart"].endswith("levelsync serve")
