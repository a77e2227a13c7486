"""The AsyncAPI document, checked with AsyncAPI's own parser (Node) and with the models."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from events import MODELS, TOPICS
from events.schemas import asyncapi

FOLDER = Path(__file__).parents[1] / "asyncapi"
# AsyncAPI 3.1 exists, but current tools read 3.0.
ALLOWED = {"asyncapi-latest-version"}


@pytest.fixture(scope="module")
def node() -> str:
    """Node with the parser beside `tests/asyncapi/package.json`. Skip the test where there is no Node."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not on this machine: AsyncAPI's parser did not run")
    if not (FOLDER / "node_modules" / "@asyncapi" / "parser").is_dir():
        flags = ["--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run([npm, "install", *flags], cwd=FOLDER, check=True, capture_output=True, timeout=180)  # noqa: S603
    return node


def _problems(node: str, document: dict[str, Any]) -> list[str]:
    command, text = [node, str(FOLDER / "validate.js")], json.dumps(document)
    done = subprocess.run(command, input=text, cwd=FOLDER, check=True, capture_output=True, text=True, timeout=60)  # noqa: S603 - our own script
    return [f"{d['code']}: {d['message']}" for d in json.loads(done.stdout) if d["code"] not in ALLOWED]


@pytest.mark.soak
def test_document_passes_the_public_parser(node: str) -> None:
    assert _problems(node, asyncapi()) == []


@pytest.mark.soak
def test_public_parser_sees_a_broken_document(node: str) -> None:
    document = asyncapi()
    del document["components"]["messages"]["ProgressLeveledUp"]
    assert _problems(node, document) != []


def test_every_topic_is_a_channel() -> None:
    assert {channel["address"] for channel in asyncapi()["channels"].values()} == set(TOPICS)


def test_every_message_names_its_type() -> None:
    messages = asyncapi()["components"]["messages"]
    types = {name: message["headers"]["properties"]["ce_type"]["const"] for name, message in messages.items()}
    assert types == {model.__name__: model.TYPE for model in MODELS}


def test_what_levelsync_writes_has_the_headers_of_the_document() -> None:
    model = MODELS[0]
    written = dict(model(user_id=42, specialization="PLAYER", to_level=5).to_kafka().headers)
    described = asyncapi()["components"]["messages"][model.__name__]["headers"]
    assert set(written) == set(described["properties"])
    assert set(described["required"]) <= set(written)
