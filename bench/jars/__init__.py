"""Kafka Connect and Debezium's JDBC sink from Maven Central, downloaded once into .cache/."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.support.apache_kafka import JARS as BROKER_JARS

_HERE = Path(__file__).parent
_FETCH_SECONDS = 300


def connect() -> Path:
    """Return the folder with Kafka Connect's jars."""
    return _fetched(_HERE / "connect.xml")


def debezium() -> Path:
    """Return the folder with the sink's jars, without those that Kafka Connect contains."""
    return _fetched(_HERE / "debezium.xml")


def version(name: str) -> str:
    """Return the version of the first dependency in `connect.xml` or `debezium.xml`."""
    return str(re.findall(r"<version>([^<]{3,})<", (_HERE / f"{name}.xml").read_text(encoding="utf-8"))[0])


def _fetched(pom: Path) -> Path:
    folder = BROKER_JARS.with_name(f"{pom.stem}-{version(pom.stem)}")
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        command = ["mvn", "-B", "-q", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={partial}"]
        subprocess.run(command, check=True, timeout=_FETCH_SECONDS, stdout=subprocess.DEVNULL)
        partial.rename(folder)
    return folder
