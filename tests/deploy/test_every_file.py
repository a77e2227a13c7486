"""A test runs or applies every file in deploy/."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.repository import ROOT

PROMETHEUS = "tests/deploy/test_prometheus.py"
DASHBOARD = "tests/deploy/test_dashboard.py"
SYSTEMD = "tests/deploy/test_systemd.py"
RIGHTS = "tests/kafka/test_rights.py::test_everything_works_with_the_rights_of_both_files"
APPLIED = {
    "deploy/grafana/dashboards/": f"{PROMETHEUS}::test_prometheus_runs_with_the_files_and_answers_every_panel",
    # Grafana itself is not there without Docker: its two files are held against the compose file that mounts them.
    "deploy/grafana/provisioning/": f"{DASHBOARD}::test_grafana_finds_prometheus_and_the_dashboard",
    "deploy/helm/": "tests/deploy/test_helm.py::test_every_object_is_valid_in_the_oldest_and_a_new_kubernetes",
    "deploy/kafka/acls.sh": RIGHTS,
    "deploy/postgresql/rights.sql": RIGHTS,
    "deploy/prometheus/alerts.yml": f"{PROMETHEUS}::test_prometheus_runs_with_the_files_and_answers_every_panel",
    "deploy/prometheus/alerts_test.yml": f"{PROMETHEUS}::test_every_alert_fires_when_it_should_and_not_otherwise",
    "deploy/prometheus/prometheus.yml": f"{PROMETHEUS}::test_prometheus_runs_with_the_files_and_answers_every_panel",
    "deploy/systemd/levelsync.service": f"{SYSTEMD}::test_the_units_commands_run_with_its_environment",
}
"""Path, or beginning of paths, and the test that applies it."""


def _files() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "deploy"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()  # noqa: S603 - fixed words


@pytest.mark.parametrize("file", _files())
def test_every_file_has_a_test_that_applies_it(file: str) -> None:
    assert [test for path, test in APPLIED.items() if file.startswith(path)]


@pytest.mark.parametrize("path", APPLIED)
def test_that_test_exists(path: str) -> None:
    file, _, name = APPLIED[path].partition("::")
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")
    assert (ROOT / path).exists()
