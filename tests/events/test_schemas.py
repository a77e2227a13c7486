"""The published JSON Schemas accept and refuse what `read` does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from events import BY_TYPE, MODELS
from events.schemas import json_schemas
from tests.support.contract import Golden, load

SCHEMAS = json_schemas()
# JSON Schema cannot state these rules: it accepts 4.0 as an integer, and it does not compare two fields.
BEYOND_SCHEMA = {"a number with a fraction", "a fall", "no rise"}
IN_BINARY_MODE = [r for r in load() if r.is_accepted and not r.name.startswith("structured_mode")]
REFUSED_DATA = [r for r in load() if r.name.startswith("refused_data")]


def _accepts(record: Golden) -> bool:
    kind = dict(record.headers)["ce_type"]
    assert kind is not None
    assert record.value is not None
    return bool(_validator(SCHEMAS[kind.decode()]).is_valid(json.loads(record.value)))


def _validator(schema: dict[str, Any]) -> Any:
    from jsonschema import Draft202012Validator, FormatChecker  # noqa: PLC0415 - takes each process that collects tests a second

    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=FormatChecker())


@pytest.mark.parametrize("kind", BY_TYPE)
def test_schema_is_valid_2020_12_with_a_true_example(kind: str) -> None:
    schema: dict[str, Any] = SCHEMAS[kind]
    validator = _validator(schema)
    assert schema["$id"] == f"urn:levelsync:{kind}"
    assert schema["title"] == BY_TYPE[kind].__name__
    assert schema["description"]
    for example in schema["examples"]:
        validator.validate(example)
        BY_TYPE[kind].model_validate_json(json.dumps(example))


def test_every_event_has_a_schema() -> None:
    assert set(SCHEMAS) == {model.TYPE for model in MODELS}


@pytest.mark.parametrize("record", [pytest.param(r, id=r.name) for r in IN_BINARY_MODE])
def test_schema_accepts_what_read_accepts(record: Golden) -> None:
    assert _accepts(record)


@pytest.mark.parametrize("record", [pytest.param(r, id=r.name) for r in REFUSED_DATA])
def test_schema_refuses_data_that_read_refuses(record: Golden) -> None:
    """Except for three rules that JSON Schema cannot express."""
    assert _accepts(record) == (record.name.removeprefix("refused_data: ") in BEYOND_SCHEMA)
