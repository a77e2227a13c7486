"""`make release` builds everything with one version, and every file in deploy/ is applied by a test."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from service.store.schema import HEAD
from tests.support import application
from tests.support.repository import ROOT, files, read

(VERSION,) = re.findall(r'^version = "(.+)"', read("pyproject.toml"), re.MULTILINE)
OF_PYDANTIC = ("pydantic", "pydantic_core", "annotated_types", "typing_extensions.py", "typing_inspection")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)  # noqa: S603 - our own project
    return folder


@pytest.fixture(scope="module")
def publisher(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and pydantic, as `pip install levelsync` creates it."""
    folder = tmp_path_factory.mktemp("publisher")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)  # noqa: S603 - as above
    (wheel,) = built.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet"]
    subprocess.run([*pip, "--no-index", "--no-deps", str(wheel)], check=True, timeout=120)  # noqa: S603 - as above
    (site,) = folder.glob("lib/python*/site-packages")
    for name in OF_PYDANTIC:
        (site / name).symlink_to(Path(sysconfig.get_path("purelib")) / name)
    return folder / "bin"


def run(program: Path, *arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command, env = [str(program), *arguments], {"PATH": os.environ["PATH"], **environment}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 - our own


def test_wheel_sdist_image_and_chart_have_the_version_of_pyproject(built: Path) -> None:
    names = {f"levelsync-{VERSION}-py3-none-any.whl", f"levelsync-{VERSION}.tar.gz"}
    assert {path.name for path in built.iterdir()} == names
    command = ["make", "--dry-run", "chart", "image", "HELM=helm"]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout  # noqa: S603
    assert f"helm package deploy/helm/levelsync --version {VERSION} --app-version {VERSION} " in said
    assert f"--build-arg VERSION={VERSION} " in said
    assert f" -t levelsync:{VERSION} ." in said


def test_the_release_workflow_keeps_what_make_release_builds() -> None:
    workflow = read(".github/workflows/release.yml")
    assert re.findall(r"run: (make .+)", workflow) == ["make tools", "make release", "make image"]
    assert "path: dist/" in workflow


def test_the_sdist_has_what_the_wheel_needs_and_nothing_of_the_tests(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        top = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert {"alembic", "events", "service", "examples", "pyproject.toml", "LICENSE", "README.md"} <= top
    assert not top & {"tests", "bench", "deploy", ".github"}
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        names = archive.namelist()
    assert not [name for name in names if name.startswith("alembic/")], "it would shadow the library"
    assert not [name for name in names if name.endswith(".pyc")]


def test_a_publisher_needs_pydantic_and_nothing_else(publisher: Path, tmp_path: Path) -> None:
    lines = (
        "from events import ProgressLeveledUp\n"
        "record = ProgressLeveledUp(user_id=42, specialization='PLAYER', to_level=5, source='/app').to_kafka()\n"
        "print(record.topic, record.key)"
    )
    done = run(publisher / "python", "-c", lines, folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "progress.leveled-up b'42'\n"), done.stderr


def test_the_command_says_what_to_install_and_works_once_it_is_there(publisher: Path, tmp_path: Path) -> None:
    bare = run(publisher / "levelsync", "--help", folder=tmp_path)
    assert (bare.returncode, bare.stdout) == (2, "")
    assert "pip install 'levelsync[service]'" in bare.stderr
    whole = run(publisher / "levelsync", "--help", folder=tmp_path, PYTHONPATH=sysconfig.get_path("purelib"))
    assert whole.returncode == 0, whole.stderr
    assert "reconcile" in whole.stdout


async def test_the_wheel_migrates_a_database_outside_the_checkout(
    publisher: Path, empty_database_url: str, tmp_path: Path
) -> None:
    code = (
        "from service.store import migrate, schema; from service.settings import load_settings;"
        "migrate.migrate(load_settings()); print(schema.scripts_folder())"
    )
    env = {"PYTHONPATH": sysconfig.get_path("purelib"), "LEVELSYNC_DATABASE_URL": empty_database_url}
    done = await asyncio.to_thread(run, publisher / "python", "-c", code, folder=tmp_path, **env)
    assert done.returncode == 0, done.stderr
    (site,) = publisher.parent.glob("lib/python*/site-packages")
    assert done.stdout.strip() == str(site / "service" / "migrations")
    assert set(application.SEED_LINES) <= set(done.stderr.splitlines())
    assert await application.value(empty_database_url, "SELECT version_num FROM levelsync.alembic_version") == HEAD


PROMETHEUS = "tests/deploy/test_prometheus.py"
DASHBOARD = "tests/deploy/test_dashboard.py"
SYSTEMD = "tests/deploy/test_systemd.py"
RIGHTS = "tests/kafka/test_rights.py::test_everything_works_with_the_rights_of_both_files"
APPLIED = {
    "deploy/grafana/dashboards/": f"{PROMETHEUS}::test_prometheus_runs_with_the_files_and_answers_every_panel",
    # Without Docker there is no Grafana, so its two files are compared with the compose file that mounts them.
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


@pytest.mark.parametrize("file", files("deploy"))
def test_every_file_has_a_test_that_applies_it(file: str) -> None:
    assert [test for path, test in APPLIED.items() if file.startswith(path)]


@pytest.mark.parametrize("path", APPLIED)
def test_the_test_of_a_file_exists(path: str) -> None:
    file, _, name = APPLIED[path].partition("::")
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")
    assert (ROOT / path).exists()
