"""deploy/prometheus: what is scraped, and when an alert fires."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from service.local.process import ServerProcess, free_port
from service.settings import Settings
from tests.support import repository
from tests.support.process import Make, http_get
from tests.support.repository import ROOT, anchors
from tests.support.waiting import eventually

ALERTS = repository.alerts()
CASES = yaml.safe_load((repository.PROMETHEUS / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run promtool beside the files. Skip the test where it is not installed."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not on this machine (Debian: apt-get install prometheus)")
    command = [program, *arguments]
    return subprocess.run(command, cwd=repository.PROMETHEUS, capture_output=True, text=True, check=False)  # noqa: S603 - our own files


def test_prometheus_takes_the_configuration_and_the_rules() -> None:
    done = promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stderr
    assert "rules found" in done.stdout


def test_every_alert_fires_when_it_should_and_not_otherwise() -> None:
    done = promtool("test", "rules", "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("topics")
async def test_prometheus_runs_with_the_files_and_answers_every_panel(
    settings: Settings, levelsync_process: Make, tmp_path: Path
) -> None:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not on this machine (Debian: apt-get install prometheus)")
    process = levelsync_process(settings.model_copy(update={"runbook_url": "https://wiki.example/levelsync"}))
    await process.start()
    address = f"127.0.0.1:{free_port()}"
    with _prometheus(program, address, str(process.url), tmp_path):

        async def value(query: str) -> list[Any]:
            answer = await _asked(f"http://{address}/api/v1/query?{urlencode({'query': query})}")
            found: list[Any] = answer["data"]["result"]
            return found

        async def links_have_their_base() -> bool:
            found = [one["metric"]["url"] for one in await value("levelsync:runbook:url")]
            return found == ["https://wiki.example/levelsync"]

        await eventually(links_have_their_base, 60)
        rules = await _asked(f"http://{address}/api/v1/rules")
        found = {rule["name"]: rule["health"] for group in rules["data"]["groups"] for rule in group["rules"]}
        assert found.keys() == ALERTS.keys() | repository.recorded()
        assert set(found.values()) == {"ok"}
        for query in repository.dashboard_queries():
            await value(query)
        assert [one["value"][1] for one in await value('sum(up{job="levelsync"})')] == ["1"]


@contextmanager
def _prometheus(program: str, address: str, scraped: str, folder: Path) -> Iterator[None]:
    """Run Prometheus with our configuration, but with a fixed address and intervals of a second."""
    configuration = yaml.safe_load((repository.PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = configuration["scrape_configs"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [scraped.removeprefix("http://")]}]
    configuration["global"] = dict.fromkeys(configuration["global"], "1s")
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    shutil.copy(repository.PROMETHEUS / "alerts.yml", folder)
    options = (f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}")
    server = ServerProcess([program, f"--config.file={folder / 'prometheus.yml'}", *options], folder / "prometheus.log")
    server.start()
    try:
        yield
    finally:
        server.stop()


async def _asked(url: str) -> Any:
    status, body = await asyncio.to_thread(http_get, url)
    assert status == 200, body
    return json.loads(body)


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_case_of_both_kinds_and_can_fire_in_the_first_hour_of_a_prometheus(name: str) -> None:
    """Each case begins with an empty Prometheus, so a rule must not need a sample from an hour ago."""
    checks = [[one for one in case["alert_rule_test"] if one["alertname"] == name] for case in CASES]
    assert {any(one["exp_alerts"] for one in of_a_case) for of_a_case in checks if of_a_case} == {True, False}
    firing = [one for of_a_case in checks for one in of_a_case if one["exp_alerts"]]
    assert min(int(one["eval_time"].removesuffix("m")) for one in firing) <= 60


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_summary_and_a_link_to_the_runbook(name: str) -> None:
    said = ALERTS[name]["annotations"]
    assert said.keys() == {"summary", "description", "runbook_url"}
    link = re.fullmatch(
        r'{{ with query "levelsync:runbook:url" }}{{ \. \| first \| label "url" }}{{ else }}(.+){{ end }}#(\w+)',
        said["runbook_url"],
    )
    assert link is not None
    path, heading = link.groups()
    assert heading == name.lower()
    assert heading in anchors(ROOT / path)
    assert ALERTS[name]["labels"].keys() == {"severity"}
    assert ALERTS[name]["labels"]["severity"] in {"page", "ticket"}


def test_a_rule_that_looks_back_an_hour_also_answers_without_that_hour() -> None:
    """`offset 1h` alone has no value after a start, but `unless … offset 1h` has."""
    for name, rule in ALERTS.items():
        for match in re.finditer(r"offset 1h", rule["expr"]):
            assert "unless" in rule["expr"][: match.start()], name
