"""deploy/prometheus: what is scraped, and when somebody is woken."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest
import yaml

from tests.support import repository
from tests.support.repository import ROOT, anchors

ALERTS = repository.alerts()


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run promtool beside the files; skips where it is not installed."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not on this machine (Debian: apt-get install prometheus)")
    return subprocess.run(  # noqa: S603 - our own files
        [program, *arguments], cwd=repository.PROMETHEUS, capture_output=True, text=True, check=False
    )


def test_prometheus_takes_the_configuration_and_the_rules() -> None:
    """Both, as `promtool` reads them."""
    done = promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stderr
    assert "rules found" in done.stdout


def test_every_alert_fires_when_it_should_and_not_when_it_should_not() -> None:
    """Each case of alerts_test.yml: outages and drift, and backlogs, restarts and single scans that are none."""
    done = promtool("test", "rules", "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_case_of_both_kinds(name: str) -> None:
    """One in which it fires, and one of another name in which it stays silent throughout."""
    fires = [any(check["exp_alerts"] for check in checks) for checks in _cases(name)]
    assert True in fires
    assert False in fires


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_says_what_is_the_matter_and_leads_to_the_runbook(name: str) -> None:
    """Whoever is woken gets a sentence, an explanation, and a page on what to do."""
    said = ALERTS[name]["annotations"]
    assert said.keys() == {"summary", "description", "runbook_url"}
    path, _, heading = said["runbook_url"].partition("#")
    assert heading == name.lower()
    assert heading in anchors(ROOT / path)
    assert ALERTS[name]["labels"].keys() == {"severity"}
    assert ALERTS[name]["labels"]["severity"] in {"page", "ticket"}


def _cases(name: str) -> list[list[dict[str, Any]]]:
    """Give the checks of this alert, a list for each case that has some."""
    found = yaml.safe_load((repository.PROMETHEUS / "alerts_test.yml").read_text(encoding="utf-8"))
    checks = ([one for one in case["alert_rule_test"] if one["alertname"] == name] for case in found["tests"])
    return [one for one in checks if one]
