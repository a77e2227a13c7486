"""`levelsync schema`: write the contract for publishers and for clients of the admin API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from service.cli import output
from service.cli.context import AsJson
from service.cli.exits import WrongUse


def schema(
    out: Annotated[Path, typer.Option(help="The folder to write to. It is created if it does not exist.")],
    as_json: AsJson = False,
) -> None:
    """Write the AsyncAPI and OpenAPI documents and the JSON Schema of every event."""
    try:
        written = write_schemas(out)
    except OSError as error:
        raise WrongUse(f"cannot write to {out}: {error.strerror or error}") from error
    if as_json:
        output.print_json({"written": [str(path) for path in written]})
        return
    for path in written:
        output.print_line(str(path))


def write_schemas(folder: Path) -> list[Path]:
    """Write `asyncapi.json`, `openapi.json` and `<type>.schema.json` for every event; return the files.

    Raises:
        OSError: the folder cannot be created or written.
    """
    from events.schemas import asyncapi, json_schemas
    from service.web.api.app import openapi_document

    folder.mkdir(parents=True, exist_ok=True)
    documents = {"asyncapi.json": asyncapi(), "openapi.json": openapi_document()}
    documents |= {f"{name}.schema.json": body for name, body in json_schemas().items()}
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return [folder / name for name in documents]
