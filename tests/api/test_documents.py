"""The API's documents are complete, and any request is answered as they say."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from events.schemas import asyncapi
from service.settings import Settings
from service.web.api import models, syncs
from service.web.api.app import openapi_document
from service.web.api.problems import PREFIX
from tests.support.load import new_seed
from tests.support.tables import fill
from tests.support.tokens import token

ANNOTATIONS = {"title", "description", "default", "examples", "discriminator"}


def operations() -> list[tuple[str, dict[str, Any]]]:
    """Return every endpoint of the document, by method and path."""
    paths = openapi_document()["paths"].items()
    return [(f"{method} {path}", one) for path, methods in paths for method, one in methods.items()]


def test_every_error_of_every_endpoint_is_documented_as_a_problem() -> None:
    """Endpoints that read a body also document 413 and 415."""
    for name, operation in operations():
        statuses = {"400", "401", "403", "422", "500", "503"} | (
            {"413", "415"} if "requestBody" in operation else set()
        )
        assert statuses <= set(operation["responses"]), name
        for status in statuses:
            content = operation["responses"][status]["content"]
            assert set(content) == {"application/problem+json"}, (name, status)
            assert content["application/problem+json"]["example"]["status"] == int(status)
        assert operation["security"] == [{"HTTPBearer": []}], name
        assert operation["summary"]
        assert operation["description"], name


def test_every_body_has_an_example() -> None:
    document = openapi_document()
    bodies = [
        one["requestBody"]["content"]["application/json"]["schema"] for _, one in operations() if "requestBody" in one
    ]
    assert bodies
    for schema in bodies:
        name = re.search(r"schemas/(\w+)", str(schema))
        assert name is not None, schema
        assert document["components"]["schemas"][name[1]]["examples"], name[1]


def test_every_answer_has_an_example_that_keeps_its_form() -> None:
    parts = openapi_document()["components"]["schemas"]
    named: set[str] = set()
    for _, operation in operations():
        for status, answer in operation["responses"].items():
            if status.startswith("2"):
                named |= set(re.findall(r"schemas/(\w+)", str(answer["content"]["application/json"]["schema"])))
    assert {"SeenIssue", "SyncAnswer", "UserSyncAnswer", "DryRunAnswer", "BulkAnswer", "RunInProgress", "Run"} <= named
    for name in named & set(vars(models)):
        for example in parts[name]["examples"]:
            getattr(models, name).model_validate(example)


async def test_the_api_serves_the_documents_of_the_command(admin: httpx.AsyncClient, api_url: str) -> None:
    assert (await admin.get(f"{api_url}/openapi.json")).json() == openapi_document()
    assert (await admin.get(f"{api_url}/asyncapi.json")).json() == asyncapi()
    assert openapi_document()["openapi"].startswith("3.1")


def test_every_schema_has_json_schemas_keywords_and_no_other() -> None:
    """`redocly lint` and Spectral require this. `ge` and `lt` are words of pydantic."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - takes each process that collects tests a second

    document = openapi_document()
    keywords = set(Draft202012Validator.VALIDATORS) | ANNOTATIONS
    schemas = [schema for schema in _schemas(document) if isinstance(schema, dict)]
    assert len(schemas) > 100
    assert {name for schema in schemas for name in schema} - keywords == set()
    for schema in schemas:
        Draft202012Validator.check_schema({name: value for name, value in schema.items() if name != "$ref"})
    assert document["servers"][0]["url"] == "/"
    number = document["paths"][f"{PREFIX}/dead-letters/{{letter_id}}"]["get"]["parameters"][0]["schema"]
    assert (number["minimum"], number["maximum"]) == (1, 2**63 - 1)


def _schemas(part: Any) -> Iterator[Any]:
    """Yield every schema of the document, with the schemas inside it."""
    if isinstance(part, list):
        for one in part:
            yield from _schemas(one)
    elif isinstance(part, dict):
        for name, value in part.items():
            if name == "schema":
                yield from _within(value)
            elif name == "schemas":
                for one in value.values():
                    yield from _within(one)
            elif name not in {"example", "examples"}:
                yield from _schemas(value)


def _within(schema: Any) -> Iterator[Any]:
    yield schema
    for name in ("anyOf", "allOf", "oneOf"):
        for one in schema.get(name, ()):
            yield from _within(one)
    for one in schema.get("properties", {}).values():
        yield from _within(one)
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from _within(schema[name])


CALLERS = ("admin", "instructor", "student", "nobody")
CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.fixture
async def tables(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some drift. No request waits for a run, because there is no worker."""
    monkeypatch.setattr(syncs, "WAIT", 0.02)
    await fill(engine, {(user, "PLAYER"): user % 8 + 1 for user in range(1, 50)}, {(3, "PLAYER"): 5, (4, "COACH"): 9})


async def schemathesis(url: str, headers: list[str], folder: Path, examples: int, *more: str) -> None:
    program = Path(sys.executable).with_name("schemathesis")
    command = [str(program), "--config-file", str(CONFIG), "run", f"{url}/openapi.json", *headers]
    # An invented cursor and an unknown specialization obey the schema and are refused.
    checks = ["--checks", "all", "--exclude-checks", "positive_data_acceptance"]
    options = [*checks, "--no-shrink", "--max-examples", str(examples), "--seed", str(new_seed()), "--no-color"]
    process = await asyncio.create_subprocess_exec(
        *command, *options, *more, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, said.decode()


def bearer(settings: Settings, caller: str) -> list[str]:
    return [] if caller == "nobody" else ["--header", f"Authorization: Bearer {token(settings, caller)}"]


@pytest.mark.usefixtures("tables")
async def test_any_request_is_answered_as_documented(api_url: str, settings: Settings, tmp_path: Path) -> None:
    """Few examples for each endpoint, as an admin. The soak covers every role and boundary."""
    phases = "examples,fuzzing"
    await schemathesis(api_url, bearer(settings, "admin"), tmp_path, 2, "--phases", phases)


@pytest.mark.soak
@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("caller", CALLERS)
async def test_very_many_requests_are_answered_as_documented(
    api_url: str, settings: Settings, tmp_path: Path, caller: str
) -> None:
    await schemathesis(api_url, bearer(settings, caller), tmp_path, 1_000, "--max-time", "30")
