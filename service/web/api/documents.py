"""/docs, /openapi.json and /asyncapi.json, with all their assets."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel

from events.schemas import asyncapi
from service.web import vendor
from service.web.api import dead_letter_models, models
from service.web.api.problems import Problem

TITLE = "levelsync: the admin API"
ABOUT = """
This API finds and repairs differences between `specialization_progress` and `user_licenses`.

Every call needs a token (`Authorization: Bearer …`) with the role `admin` or `instructor`. Only an `admin` may request
and cancel runs, replay and discard dead letters, and read the audit log. Every error is `application/problem+json`
(RFC 9457). Lists come in pages: follow `Link: …; rel="next"`. The answer's `X-Request-ID` is the request's where that
is valid, else a new one. It is in every log line of the request and in the audit log.
"""
# The one exception in the policy is inline styles, because Swagger UI uses them.
_ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_START = """
SwaggerUIBundle({url: "../openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null});
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>levelsync: the admin API</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script><script src="docs/start.js"></script>
</body>
</html>
"""


def install(app: FastAPI) -> None:
    """Add the routes of the documents to `app`."""

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        return JSONResponse(app.openapi())

    @app.get("/asyncapi.json", include_in_schema=False)
    async def asyncapi_document() -> JSONResponse:
        return JSONResponse(asyncapi())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})

    @app.get("/docs/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        headers = {"Cache-Control": "public, max-age=86400"}
        if name == "start.js":
            return Response(_START, media_type="text/javascript", headers=headers)
        if name not in _ASSETS:
            raise HTTPException(404)
        content = vendor.read(name)
        return Response(content, media_type=_ASSETS[name], headers=headers)


def describe(app: FastAPI) -> dict[str, Any]:
    """Return FastAPI's OpenAPI document as version 3.1, with the schema of problems and with every example."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
    )
    document["openapi"] = "3.1.0"
    document["servers"] = [{"url": "/", "description": "The server of this document."}]
    document["info"]["contact"] = {"name": "The operators of this levelsync"}
    document["info"]["license"] = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    parts = schema.pop("$defs", {})
    document.setdefault("components", {}).setdefault("schemas", {}).update(parts | {"Problem": schema})
    for name, shown in _examples().items():
        if name in document["components"]["schemas"]:
            document["components"]["schemas"][name]["examples"] = shown
    return document


def _examples() -> dict[str, Any]:
    """Return the models' examples with their null values, which FastAPI leaves out."""
    found = [model for module in (models, dead_letter_models) for model in vars(module).values()]
    kinds = [model for model in found if isinstance(model, type) and issubclass(model, BaseModel)]
    extras = {model.__name__: model.model_config.get("json_schema_extra") for model in kinds}
    return {
        name: extra["examples"] for name, extra in extras.items() if isinstance(extra, dict) and "examples" in extra
    }
