"""The Dockerfile's steps, run without an engine, with a virtual environment as the base image.

The test prints the size that the project adds to the base image, and how long a changed source line takes to build.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
import venv
from pathlib import Path

import pytest

from service.local.process import ServerProcess, free_port
from service.settings import Settings
from tests.support.process import http_get, serve_environment
from tests.support.repository import ROOT
from tests.support.waiting import eventually

pytestmark = [pytest.mark.soak, pytest.mark.skipif(shutil.which("strip") is None, reason="binutils is not here")]
MOST_MB = 100
"""With the base, python:3.13-slim at about 120 MB, this stays below 220 MB."""
MOST_SECONDS = 10
PLACES = ("/opt/levelsync", "/image.lock", "/build.lock", "/wheels", "/stage")


def stages() -> dict[str, list[tuple[str, str]]]:
    """Return each stage's instructions by the stage's name. The last stage has none."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    found: dict[str, list[tuple[str, str]]] = {}
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            current = found.setdefault(rest.partition(" AS ")[2], [])
        elif word.isupper() and found:
            current.append((word, rest.strip()))
    return found


def build(stage: list[tuple[str, str]], folder: Path) -> float:
    """Run a stage's steps in `folder` instead of `/`; returns the seconds that they took."""
    source = folder / "src"
    source.mkdir(exist_ok=True)
    environment = os.environ | {"PATH": f"{folder / 'base' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    began = time.monotonic()
    for word, rest in stage:
        if word == "COPY":
            *names, target = rest.split()
            for name in names:
                _copy(name, source / target)
        elif word == "RUN" and not rest.startswith("apt-get"):
            for place in PLACES:
                rest = re.sub(rf"(?<![\w/]){place}", f"{folder}{place}", rest)  # noqa: PLW2901 - step by step
            subprocess.run(["bash", "-euc", rest], cwd=source, env=environment, check=True)  # noqa: S603, S607 - ours
    return time.monotonic() - began


def _copy(name: str, target: Path) -> None:
    if name == ".":  # what .dockerignore lets in
        let_in = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        for one in [line.removeprefix("!") for line in let_in if line.startswith("!")]:
            _copy(one, target)
    elif (ROOT / name).is_dir():
        shutil.copytree(ROOT / name, target / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)


def megabytes(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()) / 1_000_000


@pytest.mark.usefixtures("topics")
async def test_the_images_steps_give_a_small_environment_that_serves(settings: Settings, tmp_path: Path) -> None:
    """It contains no pip, is below 220 MB with the base, and a changed line is built in less than ten seconds."""
    found = stages()
    assert list(found) == ["dependencies", "project", ""]
    venv.create(tmp_path / "base", with_pip=True, symlinks=True)
    seconds = {name: build(found[name], tmp_path) for name in ("dependencies", "project")}
    environment = tmp_path / "opt" / "levelsync"
    shutil.copytree(Path(f"{tmp_path}/stage{environment}"), environment, dirs_exist_ok=True, symlinks=True)
    size = megabytes(environment)
    took = f"dependencies {seconds['dependencies']:.0f} s, a changed line {seconds['project']:.1f} s"
    print(f"beside the base: {size:.0f} MB; {took}; load {os.getloadavg()[0]:.1f}")  # noqa: T201 - a measurement
    assert not list(environment.rglob("site-packages/pip*"))
    await _serves(environment / "bin", settings, tmp_path)
    assert size <= MOST_MB
    assert seconds["project"] <= MOST_SECONDS * max(1.0, os.getloadavg()[0])


async def _serves(programs: Path, settings: Settings, folder: Path) -> None:
    """Run the image's entry point with its packages only, and request health, metrics, the page and the API's forms."""
    entry = re.search(r'^ENTRYPOINT \["(\w+)"\]$', (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert entry is not None
    url = f"http://127.0.0.1:{(port := free_port())}"
    given = {name: text for name, text in serve_environment(settings).items() if name.startswith("LEVELSYNC_")}
    process = ServerProcess(
        [str(programs / entry[1]), "serve"],
        folder / "serve.log",
        environment=given | {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", "LEVELSYNC_HTTP_PORT": str(port)},
        folder=folder,
    )
    process.start()
    try:
        await eventually(lambda: http_get(f"{url}/readyz")[0] == 200, 60)
        assert [http_get(f"{url}{path}")[0] for path in ("/livez", "/metrics", "/page/sign-in", "/docs")] == [200] * 4
    finally:
        process.stop()
        print((folder / "serve.log").read_text())  # noqa: T201 - pytest shows it for a test that failed
