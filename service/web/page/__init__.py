"""The operations page: the functions of `service.admin` in a browser. It needs the extra `page`."""

from __future__ import annotations

from importlib.util import find_spec

from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from service.admin.tokens import Authenticator
from service.settings import Settings
from service.telemetry.health import Health
from service.web.page.memory import Memory

NEEDS = ("jinja2", "python_multipart")
_MISSING = """\
The operations page is not installed. To install it, run:

    pip install 'levelsync[service,page]'

Then restart this process. Everything else works without the page. /docs describes the admin API.
"""


def page_routes(
    engine: AsyncEngine, settings: Settings, authenticator: Authenticator, health: Health, memory: Memory
) -> list[BaseRoute]:
    """Return the routes of the page, `/` and everything below `/page`, or a route that names what to install."""
    if any(find_spec(name) is None for name in NEEDS):
        return [Route("/", _not_installed)]
    from service.web.page.app import make_page  # noqa: PLC0415 - needs the extra

    page = make_page(engine, settings, authenticator, health, memory)
    return [Route("/", page), Mount("/page", page)]


async def _not_installed(_request: Request) -> Response:
    return PlainTextResponse(_MISSING, 501)
