"""Strict reading of bodies, CSV answers, and the routers that do both."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine
from functools import reduce
from http import HTTPStatus
from typing import Any, get_args, get_origin

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from service.admin.identity import Action
from service.core.sheet import as_csv
from service.web.api.backend import Allowed, sign_in
from service.web.api.problems import PREFIX

LARGEST = 64 * 1024
"""The maximum size of a body, in bytes."""


class StrictRequest(Request):
    """A request with a limited body, and with JSON that is UTF-8 and has no duplicate names and no NaN."""

    async def body(self) -> bytes:
        """Return the body.

        Raises:
            HTTPException: 413, it has more than 64 KB, and the rest is not read; 415, it is not application/json.
        """
        if not hasattr(self, "_body"):
            self._body = await self._read()
        return self._body

    async def _read(self) -> bytes:
        too_large = HTTPException(413, f"The body has more than {LARGEST} bytes.")
        if _length(self) > LARGEST:
            raise too_large
        body = bytearray()
        async for part in self.stream():
            body += part
            if len(body) > LARGEST:
                raise too_large
        if body and not _is_json(self):
            raise HTTPException(415, "The body must be application/json, without a Content-Encoding.")
        return bytes(body)

    async def json(self) -> Any:
        """Return the value of the JSON body.

        Raises:
            HTTPException: 400, the body is not JSON; 422, it is null.
        """
        value = parse(await self.body())
        if value is None:
            raise HTTPException(422, "The body is null. Send an object, or no body.")
        return value


class StrictRoute(APIRoute):
    """An endpoint that checks the token before it reads the body, and that can answer with a list as CSV."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return a handler that checks the token, then reads the request strictly."""
        handle: Callable[[Request], Awaitable[Response]] = super().get_route_handler()

        action = self._action()

        async def strictly(request: Request) -> Response:
            await sign_in(request)
            request.state.action = action  # for the audit log, also where the body cannot be read
            response = await handle(StrictRequest(request.scope, request.receive))
            wanted = getattr(request.state, "as_csv", False) and response.status_code == HTTPStatus.OK
            return _as_csv(response, self.response_model) if wanted else response

        return strictly

    def _action(self) -> Action:
        found = (one.call.action for one in self.dependant.dependencies if isinstance(one.call, Allowed))
        return next(found, "read")


def parse(body: bytes) -> Any:
    """Read JSON.

    Raises:
        HTTPException: 400, with the fault and without any of the body's text.
    """
    try:
        return json.loads(body.decode(), object_pairs_hook=_without_duplicates, parse_constant=_refuse)
    except UnicodeDecodeError:
        raise HTTPException(400, "The body is not UTF-8.") from None
    except json.JSONDecodeError as error:
        raise HTTPException(400, f"The body is not JSON: {error.msg} at character {error.pos}.") from None
    except RecursionError:
        raise HTTPException(400, "The body is nested too deeply.") from None
    except ValueError as error:
        raise HTTPException(400, f"The body is not JSON: {error}.") from None


def _as_csv(response: Response, model: Any) -> Response:
    """Return a list as CSV, with the same link to its next page."""
    rows = json.loads(bytes(response.body))
    columns = _columns(rows, model)
    sheet = as_csv([".".join(path) for path in columns], ([_value(row, path) for path in columns] for row in rows))
    headers = {name: value for name, value in response.headers.items() if name == "link"}
    headers |= {"Content-Disposition": "attachment", "Vary": "Accept"}
    return Response(sheet, media_type="text/csv", headers=headers)


def _columns(rows: list[dict[str, Any]], model: Any) -> list[tuple[str, ...]]:
    """Return the path of each column: the name of a field, or of an object and a field in it."""
    kinds = [get_args(one)[0] for one in (get_args(model) if get_origin(model) is not list else [model])]
    fitting = [kind for kind in kinds if not rows or kind.model_fields.keys() == rows[0].keys()]
    return [
        (name, *inner)
        for name, field in fitting[0].model_fields.items()
        for inner in ([(one,) for one in field.annotation.model_fields] if _is_model(field.annotation) else [()])
    ]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _value(row: Any, path: tuple[str, ...]) -> Any:
    return reduce(lambda value, name: value[name], path, row)


def _length(request: Request) -> int:
    stated = request.headers.get("content-length", "0")
    return int(stated) if stated.isascii() and stated.isdigit() else 0


def _is_json(request: Request) -> bool:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )
    return is_json and "content-encoding" not in request.headers


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _refuse(_constant: str) -> Any:
    raise ValueError("NaN and Infinity are not valid JSON")


_BEARER = HTTPBearer(
    bearerFormat="JWT", description="A token of the application or its identity provider.", auto_error=False
)


def make_router(tag: str) -> APIRouter:
    """Create a router below the API's prefix that checks tokens first and reads bodies strictly."""
    return APIRouter(prefix=PREFIX, tags=[tag], route_class=StrictRoute, dependencies=[Depends(_BEARER)])
