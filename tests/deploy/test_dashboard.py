"""deploy/grafana and docs/dashboards.md: the dashboard, how Grafana finds it, and the views of other tools."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
import yaml
from sqlalchemy import Connection
from starlette.routing import Route

from service.store import revisions
from service.store.engine import make_engine
from service.web.page.app import _routes
from tests.support import application, reader, repository
from tests.support.repository import ROOT

TEXT = repository.read("docs/dashboards.md")
STATEMENTS = re.findall(r"^```sql\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
EXAMPLES, GRANTS = STATEMENTS[:-1], STATEMENTS[-1].strip().split(";\n")
VIEWS = repository.read("docs/views.md")
RELATIONS = tuple(f"levelsync.{name}" for name in ("pairs", "drift", "run_summary", "applied_offsets", "dead_letters"))
SERVICES = repository.services({"POSTGRES_PASSWORD": "x", "LEVELSYNC_JWT_SECRET": "x"})
_GAUGES = re.compile(
    r"levelsync_(?:consumer_lag_records|dead_letters|outbox_\w+|drift_\w+|reconcile_(?:last|period)\w+)\{"
)
_COUNTERS = re.compile(r"levelsync_\w+_(?:total|bucket|sum|count)\{[^}]*\}")


def test_the_first_row_is_the_verdict() -> None:
    titles = [panel["type"] for panel in repository.dashboard()["panels"]]
    assert titles[:10] == ["row", *["stat"] * 8, "row"]
    for panel in repository.dashboard()["panels"][1:9]:
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"]


def test_every_panel_says_what_it_means_and_asks_the_prometheus_that_is_chosen() -> None:
    for panel in repository.panels():
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert {one["datasource"]["uid"] for one in (panel, *panel["targets"])} == {"${datasource}"}


def test_no_two_panels_overlap() -> None:
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


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    provisioning = repository.GRAFANA / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    (folder,) = yaml.safe_load((provisioning / "dashboards" / "levelsync.yml").read_text())["providers"]
    (variable,) = [one for one in repository.dashboard()["templating"]["list"] if one["type"] == "datasource"]
    assert variable["current"]["value"] == source["uid"]
    assert source["url"] == "http://prometheus:9090"
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"] if volume.startswith("."))
    assert mounts == {
        "./deploy/grafana/provisioning": "/etc/grafana/provisioning",
        "./deploy/grafana/dashboards": folder["options"]["path"],
    }
    assert all((ROOT / path).is_dir() for path in mounts)


def test_every_variable_narrows_some_panel_and_no_panel_uses_another() -> None:
    """Prometheus would receive an unknown variable as text."""
    asked = {one["name"]: one for one in repository.dashboard()["templating"]["list"] if one["type"] == "query"}
    assert asked.keys() == {"instance", "topic", "specialization"}
    text = [target["expr"] for panel in repository.panels() for target in panel["targets"]]
    assert set(re.findall(r"\$(\w+)", " ".join(text))) == asked.keys()
    known = {name for one in asked.values() for name in repository.names(one["query"]["query"])}
    assert known == {"up", "levelsync_consumer_lag_records", "levelsync_drift_pairs"}


def test_panels_link_to_existing_pages() -> None:
    links = [link["url"] for panel in repository.panels() for link in panel.get("links", ())]
    assert {"${page}/", "${page}/page/runs", "${page}/page/dead-letters"} == set(links)
    paths = {"/page" + route.path for route in _routes() if isinstance(route, Route)} | {"/"}
    assert {link.removeprefix("${page}") for link in links} <= paths
    assert len(links) >= 10


def test_the_dashboards_start_only_when_asked_for() -> None:
    asked_for = {name for name, service in SERVICES.items() if "profiles" in service}
    assert asked_for == {"prometheus", "grafana"}
    assert all(SERVICES[name]["profiles"] == ["dashboards"] for name in asked_for)


def test_the_dashboard_is_formatted_json() -> None:
    text = repository.DASHBOARD.read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"


@asynccontextmanager
async def reading(url: str, *grants: str) -> AsyncIterator[Any]:
    """Create a role with these statements of the document; yield a connection with its rights."""
    name = f"reader_{uuid.uuid4().hex}"
    await application.execute(url, *(grant.replace("levelsync_reader", name) for grant in grants))
    try:
        async with application.connected(url) as conn:
            await conn.execute(f"SET SESSION AUTHORIZATION {name}")
            yield conn
    finally:
        await application.execute(url, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


async def test_a_reader_can_run_every_example_and_write_nothing(database_url: str) -> None:
    async with reading(database_url, *GRANTS) as conn:
        assert [row["percent_in_sync"] for row in await conn.fetch(EXAMPLES[0])] == [100, 100, 100]
        for example in EXAMPLES[1:]:
            assert await conn.fetch(example) == []
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.execute("UPDATE user_licenses SET current_level = 1")


async def test_pairs_are_compared_with_the_rights_of_the_reader(database_url: str) -> None:
    """The view does not lend the application's tables to a role without rights on them."""
    async with reading(database_url, *(grant for grant in GRANTS if "public." not in grant)) as conn:
        assert await conn.fetch("SELECT * FROM levelsync.drift") == []
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.fetch("SELECT * FROM levelsync.pairs")


async def test_the_document_and_the_comments_of_a_view_are_equal(database_url: str) -> None:
    """docs/views.md and the comments in PostgreSQL are the same text for the same columns."""
    columns = "SELECT attname, col_description(attrelid, attnum) FROM pg_attribute WHERE attrelid = '{}'::regclass"
    for relation in RELATIONS:
        found = await application.rows(
            database_url, f"{columns.format(relation)} AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        )
        about = await application.value(database_url, f"SELECT obj_description('{relation}'::regclass)")
        section = reader.section(VIEWS.replace("`", ""), relation)
        assert re.findall(r"^\| (\w+) \| (.+) \|$", section, re.MULTILINE) == [("column", "means"), *found]
        assert section.strip().partition("\n")[0] == about


async def test_every_view_has_comments_and_keeps_them_where_it_is_created_again(database_url: str) -> None:
    """The revision `bigint_user_ids` creates two views again."""
    engine = make_engine(application.settings(database_url))

    def create_again(conn: Connection) -> None:
        with revisions.set_aside(conn, ("levelsync.drift", "levelsync.pairs")):
            pass

    async with engine.begin() as conn:
        await conn.run_sync(create_again)
    await engine.dispose()
    bare = await application.rows(
        database_url,
        "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum >= 0 "
        "WHERE c.relnamespace = 'levelsync'::regnamespace AND c.relkind = 'v' "
        "AND (obj_description(c.oid) IS NULL OR col_description(c.oid, a.attnum) IS NULL)",
    )
    assert bare == []


def test_every_alert_is_listed_with_its_severity() -> None:
    listed = dict(re.findall(r"^\| \[(Levelsync\w+)\]\(.*\| (page|ticket) \|$", TEXT, re.MULTILINE))
    assert listed == {name: rule["labels"]["severity"] for name, rule in repository.alerts().items()}
