"""deploy/grafana: the dashboard, and how Grafana finds it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from starlette.routing import Route

from service.web.page.app import _routes
from tests.support import repository
from tests.support.repository import ROOT

_GAUGES = re.compile(
    r"levelsync_(?:consumer_lag_records|dead_letters|outbox_\w+|drift_\w+|reconcile_(?:last|period)\w+)\{"
)
_COUNTERS = re.compile(r"levelsync_\w+_(?:total|bucket|sum|count)\{[^}]*\}")


def test_the_first_row_is_the_verdict() -> None:
    """Eight numbers come before any curve."""
    titles = [panel["type"] for panel in repository.dashboard()["panels"]]
    assert titles[:10] == ["row", *["stat"] * 8, "row"]
    for panel in repository.dashboard()["panels"][1:9]:
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"]


def test_every_panel_says_what_it_means() -> None:
    for panel in repository.panels():
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]


def test_no_two_panels_lie_on_each_other() -> None:
    cells = [
        (column, line)
        for place in (panel["gridPos"] for panel in repository.dashboard()["panels"])
        for column in range(place["x"], place["x"] + place["w"])
        for line in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(column for column, _ in cells) < 24


@pytest.mark.parametrize("query", repository.dashboard_queries())
def test_gauges_are_taken_as_their_maximum_and_counters_as_a_rate(query: str) -> None:
    """Gauges are the same in every process, so a sum over processes would be a multiple."""
    for gauge in _GAUGES.finditer(query):
        assert re.search(r"\bmax(?: by \([\w, ]+\))? \(?$|\bmax\($", query[: gauge.start()]), query
    for counter in _COUNTERS.finditer(query):
        assert re.search(r"(?:rate|increase)\($", query[: counter.start()]), query


def test_prometheus_can_parse_every_query(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on this machine (Debian: apt-get install prometheus)")
    asked = dict.fromkeys(repository.dashboard_queries())
    rules = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(asked)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)  # noqa: S603 - our own file
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    services = repository.services({"POSTGRES_PASSWORD": "x", "LEVELSYNC_JWT_SECRET": "x"})
    provisioning = repository.GRAFANA / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text(encoding="utf-8"))[
        "datasources"
    ]
    (folder,) = yaml.safe_load((provisioning / "dashboards" / "levelsync.yml").read_text(encoding="utf-8"))["providers"]
    (variable,) = [one for one in repository.dashboard()["templating"]["list"] if one["type"] == "datasource"]
    assert variable["current"]["value"] == source["uid"]
    assert source["url"] == "http://prometheus:9090"
    mounts = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"] if volume.startswith("."))
    assert mounts == {
        "./deploy/grafana/provisioning": "/etc/grafana/provisioning",
        "./deploy/grafana/dashboards": folder["options"]["path"],
    }
    assert all((ROOT / path).is_dir() for path in mounts)
    (target,) = yaml.safe_load((repository.PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    assert [(one["names"], one["port"]) for one in target["dns_sd_configs"]] == [(["serve"], 8000)]
    assert target["job_name"] == "levelsync"


def test_every_panel_asks_the_prometheus_that_is_chosen() -> None:
    """A dashboard that is imported elsewhere has another data source."""
    sources = [one["datasource"]["uid"] for panel in repository.panels() for one in (panel, *panel["targets"])]
    assert set(sources) == {"${datasource}"}


def test_every_variable_narrows_some_panel_and_no_panel_uses_another() -> None:
    """Prometheus would receive an unknown variable as text."""
    asked = {one["name"]: one for one in repository.dashboard()["templating"]["list"] if one["type"] == "query"}
    assert asked.keys() == {"instance", "topic", "specialization"}
    text = [target["expr"] for panel in repository.panels() for target in panel["targets"]]
    assert set(re.findall(r"\$(\w+)", " ".join(text))) == asked.keys()
    known = {name for one in asked.values() for name in repository.names(one["query"]["query"])}
    assert known == {"up", "levelsync_consumer_lag_records", "levelsync_drift_pairs"}


def test_panels_lead_to_pages_that_there_are() -> None:
    links = [link["url"] for panel in repository.panels() for link in panel.get("links", ())]
    assert {"${page}/", "${page}/page/runs", "${page}/page/dead-letters"} == set(links)
    paths = {"/page" + route.path for route in _routes() if isinstance(route, Route)} | {"/"}
    assert {link.removeprefix("${page}") for link in links} <= paths
    assert len(links) >= 10


def test_the_dashboards_start_only_when_asked_for() -> None:
    """Each is started by its profile."""
    services = repository.services({"POSTGRES_PASSWORD": "x", "LEVELSYNC_JWT_SECRET": "x"})
    asked_for = {name for name, service in services.items() if "profiles" in service}
    assert asked_for == {"prometheus", "grafana"}
    assert all(services[name]["profiles"] == ["dashboards"] for name in asked_for)


def test_the_dashboard_is_written_as_json_tools_write_it() -> None:
    """An export from Grafana then shows only what was changed."""
    text = repository.DASHBOARD.read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"
