"""deploy/helm: the chart as Helm renders it, against the schemas of Kubernetes and of the Prometheus operator."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import unknown_names
from tests.support import reader
from tests.support.repository import ROOT, read

CHART = ROOT / "deploy" / "helm" / "levelsync"
EVERYTHING = (
    "--set=serviceMonitor.enabled=true",
    "--set=prometheusRule.enabled=true",
    "--set=prometheusRule.runbookUrl=https://wiki.example/runbook",
    "--set=secrets.tls=levelsync-tls",
    "--set=config.LEVELSYNC_KAFKA_BOOTSTRAP_SERVERS=kafka:9092",
    "--set=config.LEVELSYNC_HTTP_PORT=",
)
KUBERNETES = ("1.29", "1.34")
OPERATOR = {"ServiceMonitor", "PrometheusRule"}


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm from `make tools` or the machine. Skip the test where there is none."""
    program = shutil.which("helm", path=f"{ROOT / '.tools'}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        pytest.skip("helm is not on this machine (make tools)")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)  # noqa: S603 - our own


@cache
def rendered(*options: str) -> list[dict[str, Any]]:
    done = helm("template", "test", str(CHART), "--kube-version", "1.34.0", "--namespace", "apps", *options)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def of_kind(kind: str, *options: str) -> list[dict[str, Any]]:
    return [one for one in rendered(*EVERYTHING, *options) if one["kind"] == kind]


def validate(document: dict[str, Any], version: str) -> None:
    """Check an object strictly. A kind without a schema fails."""
    import kubernetes_validate  # noqa: PLC0415 - takes each process that collects tests a second
    from cloudcoil.models.prometheus_operator import v1  # noqa: PLC0415 - takes each process that collects tests a second

    if document["kind"] not in OPERATOR:
        kubernetes_validate.validate(document, version, strict=True)
        return
    parsed = getattr(v1, document["kind"]).model_validate(document)
    written = parsed.model_dump(by_alias=True, exclude_unset=True, mode="json")
    assert written == json.loads(json.dumps(document)), "a field that the kind does not have"


def test_helm_lints_the_chart() -> None:
    for options in ((), EVERYTHING):
        done = helm("lint", "--strict", str(CHART), *options)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", KUBERNETES)
def test_every_object_is_valid_in_the_oldest_and_a_new_kubernetes(version: str) -> None:
    documents = rendered(*EVERYTHING)
    for document in documents:
        validate(document, version)
    kinds = {"Deployment", "Job", "NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount"}
    assert {document["kind"] for document in documents} == kinds | OPERATOR


def test_the_check_sees_a_misspelt_field_and_a_missing_schema() -> None:
    import kubernetes_validate  # noqa: PLC0415 - takes each process that collects tests a second

    deployment = of_kind("Deployment")[0]
    with pytest.raises(kubernetes_validate.ValidationError):
        validate({**deployment, "spek": {}}, KUBERNETES[0])
    monitor = of_kind("ServiceMonitor")[0]
    with pytest.raises(AssertionError, match="does not have"):
        validate({**monitor, "spec": {**monitor["spec"], "endpoint": []}}, KUBERNETES[0])
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        validate({"apiVersion": "example.org/v1", "kind": "Unheard"}, KUBERNETES[0])


def test_the_migrations_use_nothing_that_the_chart_itself_creates() -> None:
    """Helm runs the migrations before it creates the chart's service account and config map."""
    (job,) = of_kind("Job")
    assert job["metadata"]["annotations"] == {
        "helm.sh/hook": "pre-install,pre-upgrade",
        "helm.sh/hook-delete-policy": "before-hook-creation",
    }
    pod = job["spec"]["template"]["spec"]
    assert "serviceAccountName" not in pod
    secrets = [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume]
    assert secrets == ["levelsync-migrator", "levelsync-tls"]
    assert pod["containers"][0]["args"] == ["migrate"]


def test_an_outage_makes_workers_unready_and_leaves_the_page_reachable() -> None:
    """Startup and liveness use /livez. Readiness uses /readyz for workers and /livez for the API."""
    paths = {}
    for deployment in of_kind("Deployment"):
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        part = deployment["metadata"]["labels"]["app.kubernetes.io/component"]
        probes = ("startupProbe", "livenessProbe", "readinessProbe")
        paths[part] = [container[probe]["httpGet"]["path"] for probe in probes]
    assert paths == {"worker": ["/livez", "/livez", "/readyz"], "api": ["/livez", "/livez", "/livez"]}


def test_every_container_runs_without_rights() -> None:
    for document in [*of_kind("Deployment"), *of_kind("Job")]:
        pod = document["spec"]["template"]["spec"]
        container = pod["containers"][0]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        rights = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
        assert container["securityContext"] == rights | {"capabilities": {"drop": ["ALL"]}}
        assert container["resources"]["limits"]["memory"] == "512Mi"


def test_a_rollout_never_has_fewer_pods_and_an_unready_pod_holds_up_no_drain() -> None:
    rolling = [one["spec"]["strategy"]["rollingUpdate"] for one in of_kind("Deployment")]
    assert rolling == [{"maxUnavailable": 0, "maxSurge": 1}] * 2
    budgets = of_kind("PodDisruptionBudget")
    assert [one["spec"]["unhealthyPodEvictionPolicy"] for one in budgets] == ["AlwaysAllow"] * 2


def test_the_rules_are_those_of_the_alert_file_with_the_runbook_of_the_installation() -> None:
    (rule,) = of_kind("PrometheusRule")
    text = read("deploy/prometheus/alerts.yml")
    assert rule["spec"] == yaml.safe_load(text.replace("docs/runbook.md", "https://wiki.example/runbook"))


def test_prometheus_scrapes_every_pod_as_the_job_of_the_alerts() -> None:
    """The service's label gives the job that the alerts name."""
    (monitor,) = of_kind("ServiceMonitor")
    service = next(one for one in of_kind("Service") if one["metadata"]["name"].endswith("-metrics"))
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "levelsync"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service["spec"]["publishNotReadyAddresses"] is True


def test_every_setting_that_the_chart_writes_exists() -> None:
    for document in [*of_kind("Deployment"), *of_kind("Job")]:
        env = document["spec"]["template"]["spec"]["containers"][0]["env"]
        names = {one["name"]: str(one["value"]) for one in env}
        assert unknown_names(names).keys() <= {"LEVELSYNC_SECRETS_DIR"}


def test_a_misspelt_value_is_refused() -> None:
    """values.schema.json: `worker.replica` would otherwise be ignored."""
    done = helm("template", "test", str(CHART), "--kube-version", "1.34.0", "--set", "worker.replica=3")
    assert done.returncode != 0
    assert "replica" in done.stderr


def test_the_documented_install_renders(tmp_path: Path) -> None:
    text = read("docs/kubernetes.md")
    secrets, install = (block.replace("\\\n", "") for language, block in reader.blocks(text) if not language)
    packaged = helm("package", str(CHART), "--destination", str(tmp_path))
    assert packaged.returncode == 0, packaged.stderr
    program, *words = shlex.split(install.splitlines()[0])
    assert (program, words[:4]) == ("helm", ["upgrade", "--install", "levelsync", "dist/levelsync-*.tgz"])
    (chart,) = tmp_path.glob("levelsync-*.tgz")
    done = helm("template", words[2], str(chart), "--kube-version", "1.34.0", *words[4:])
    assert done.returncode == 0, done.stderr
    mounted = {
        volume["secret"]["secretName"]
        for one in yaml.safe_load_all(done.stdout)
        if one["kind"] in {"Deployment", "Job"}
        for volume in one["spec"]["template"]["spec"]["volumes"]
        if "secret" in volume
    }
    assert set(re.findall(r"create secret generic (\S+)", secrets)) == mounted
    named = {one["metadata"]["name"] for one in yaml.safe_load_all(done.stdout) if one["kind"] == "Deployment"}
    assert re.findall(r"deploy/(\S+)", install) == ["levelsync-worker"]
    assert "levelsync-worker" in named
