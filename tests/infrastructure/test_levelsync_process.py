"""`levelsync serve` as a process of its own, in the tests' helper."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from service.settings import Settings
from tests.support.process import Make, serve_environment


async def test_a_process_that_ends_while_it_starts_shows_its_output(levelsync_process: Make) -> None:
    process = levelsync_process(arguments=("serve", "--roles", "nonsense"))
    with pytest.raises(RuntimeError, match="nonsense"):
        await process.start()


def test_every_setting_reads_back_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = Settings(
        _env_file=None,
        database_url=SecretStr("postgresql://u:p@127.0.0.1:1/d"),
        reconcile_grace=timedelta(milliseconds=250),
        license_defaults={"kind": "x"},
        kafka_ssl_cafile=tmp_path / "ca.pem",
        reconcile_execute=True,
    )
    for name, value in serve_environment(given).items():
        monkeypatch.setenv(name, value)
    assert Settings(_env_file=None) == given
