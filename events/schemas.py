"""The contract for publishers in any language: JSON Schemas and an AsyncAPI document, generated from the event models.

JSON Schema cannot express two rules, so they are in the descriptions. levelsync refuses `4.0`, which JSON Schema
accepts as an integer, and `to_level` must be above `from_level`.
"""

from __future__ import annotations

import inspect
from typing import Any

from pydantic.json_schema import models_json_schema

from events.attributes import LONGEST
from events.base import Event
from events.levels import LevelRaised
from events.reading import MODELS
from events.reconcile import ReconcileChunk, ReconcileRequested
from events.writing import JSON_TYPE, SPEC_VERSION

VERSION = "1.1.0"
"""The version of the contract, not of the service. A new optional field raises the second number. A field with a new
meaning requires a new event type (`….v2`).
"""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TITLE = "levelsync: the events that keep a user's level in two tables in agreement"
_ABOUT = (
    "CloudEvents 1.0 over Kafka. Publish in binary mode. Structured mode (content-type application/cloudevents+json) "
    'is accepted too. Unknown fields are ignored. Numbers are JSON integers, so 4.0 and "4" are refused.'
)
_KAFKA_BINDING = "0.5.0"


def json_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema (2020-12) of each event's data, by CloudEvents type."""
    return {model.TYPE: _schema(model) for model in MODELS}


def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI 3.0 document: channels, levelsync's own operations, and messages with headers and keys."""
    return {
        "asyncapi": "3.0.0",
        "info": {"title": _TITLE, "version": VERSION, "description": _ABOUT, "license": {"name": "Apache-2.0"}},
        "defaultContentType": JSON_TYPE,
        "channels": {model.TOPIC: _channel(model) for model in MODELS},
        "operations": {f"{action}.{m.TOPIC}": _operation(action, m) for m in MODELS for action in _actions(m)},
        "components": {"messages": {m.__name__: _message(m) for m in MODELS}, "schemas": _shared_schemas()},
    }


def _schema(model: type[Event]) -> dict[str, Any]:
    return {"$schema": _DIALECT, "$id": f"urn:levelsync:{model.TYPE}"} | model.model_json_schema()


def _shared_schemas() -> dict[str, Any]:
    """Return the schema of every model once, because the other parts of the document refer to them."""
    _, shared = models_json_schema(
        [(model, "validation") for model in MODELS], ref_template="#/components/schemas/{model}"
    )
    schemas: dict[str, Any] = shared["$defs"]
    return schemas


def _actions(model: type[Event]) -> tuple[str, ...]:
    if issubclass(model, ReconcileChunk):
        return ("send", "receive")
    return ("receive",) if issubclass(model, LevelRaised | ReconcileRequested) else ("send",)


def _channel(model: type[Event]) -> dict[str, Any]:
    return {
        "address": model.TOPIC,
        "messages": {model.__name__: {"$ref": f"#/components/messages/{model.__name__}"}},
        "bindings": {"kafka": {"topic": model.TOPIC, "bindingVersion": _KAFKA_BINDING}},
    }


def _operation(action: str, model: type[Event]) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{model.TOPIC}"},
        "summary": f"levelsync {'reads' if action == 'receive' else 'publishes'} {model.__name__}",
        "messages": [{"$ref": f"#/channels/{model.TOPIC}/messages/{model.__name__}"}],
    }


def _message(model: type[Event]) -> dict[str, Any]:
    key = {"type": "string", "description": inspect.getdoc(model.key)}
    return {
        "name": model.TYPE,
        "title": model.__name__,
        "summary": inspect.cleandoc(model.__doc__ or ""),
        "contentType": JSON_TYPE,
        "headers": _headers(model),
        "payload": {"$ref": f"#/components/schemas/{model.__name__}"},
        "bindings": {"kafka": {"key": key, "bindingVersion": _KAFKA_BINDING}},
        "examples": [{"payload": example} for example in _schema(model)["examples"]],
    }


def _headers(model: type[Event]) -> dict[str, Any]:
    """Return the schema of the headers: the CloudEvents attributes in binary mode."""
    text = {"type": "string", "minLength": 1, "maxLength": LONGEST}
    properties: dict[str, Any] = {
        "ce_specversion": {"type": "string", "const": SPEC_VERSION},
        "ce_id": text | {"description": "The event's id, unique within ce_source."},
        "ce_source": text | {"format": "uri-reference", "description": "The publisher."},
        "ce_type": {"type": "string", "const": model.TYPE},
        "ce_time": {
            "type": "string",
            "format": "date-time",
            "description": "When the event occurred. Absent: the record's timestamp.",
        },
        "content-type": {"type": "string", "default": JSON_TYPE},
    }
    return {
        "type": "object",
        "properties": properties,
        "required": ["ce_specversion", "ce_id", "ce_source", "ce_type"],
    }
