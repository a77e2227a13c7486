"""Pages of lists: their parameters, and the header `Link` with the cursor of the next page."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import Query, Request, Response

from service.admin.cursors import encode

Cursor = Annotated[
    str | None, Query(max_length=500, description="Where the page begins. Copy it from `Link` of the previous page.")
]


AS_CSV: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}
"""The CSV answer of a list, for the API's document."""
Form = Annotated[
    Literal["json", "csv"] | None,
    Query(alias="format", description="`csv` returns the same page as a sheet, as `Accept: text/csv` does."),
]


class _Page:
    """The requested page of a list."""

    def __init__(self, request: Request, response: Response, limit: int, cursor: str | None, form: str | None) -> None:
        self._request, self._response = request, response
        request.state.as_csv = form == "csv" or (form is None and _prefers_csv(request))
        self.limit = limit
        self.cursor = cursor

    def link_next(self, *position: Any) -> None:
        """Set the header `Link` to the page that begins after this position."""
        query = dict(self._request.query_params) | {"cursor": encode(*position)}
        self._response.headers["Link"] = f'<{self._request.url.path}?{urlencode(query)}>; rel="next"'


def _prefers_csv(request: Request) -> bool:
    """Return whether the client prefers CSV to JSON. A client that accepts both equally gets JSON."""
    weights = dict(map(_weight, request.headers.get("accept", "").split(",")))
    json_too = max(weights.get(kind, 0) for kind in ("application/json", "application/*", "*/*"))
    return weights.get("text/csv", 0) > json_too


def _weight(part: str) -> tuple[str, float]:
    kind, _, parameters = part.partition(";")
    quality = re.search(r"q=([01](\.\d{0,3})?)", parameters)
    return kind.strip().lower(), float(quality[1]) if quality else 1.0


class Page(_Page):
    """A page of up to 1,000 items, by default 100."""

    def __init__(
        self,
        request: Request,
        response: Response,
        limit: Annotated[int, Query(ge=1, le=1000, description="The maximum number of items of the page.")] = 100,
        cursor: Cursor = None,
        form: Form = None,
    ) -> None:
        super().__init__(request, response, limit, cursor, form)


class ShortPage(_Page):
    """A page of up to 100 items, by default 20, for items that take some work each."""

    def __init__(
        self,
        request: Request,
        response: Response,
        limit: Annotated[int, Query(ge=1, le=100, description="The maximum number of items of the page.")] = 20,
        cursor: Cursor = None,
        form: Form = None,
    ) -> None:
        super().__init__(request, response, limit, cursor, form)
