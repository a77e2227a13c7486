"""What the API's routers have in common."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from fastapi.security import HTTPBearer

from service.api.bodies import StrictRoute
from service.api.middleware import PREFIX

_BEARER = HTTPBearer(
    bearerFormat="JWT", description="A token of the application or its identity provider.", auto_error=False
)


def make_router(tag: str) -> APIRouter:
    """A router below the API's prefix: it signs in first and reads bodies strictly."""
    return APIRouter(prefix=PREFIX, tags=[tag], route_class=StrictRoute, dependencies=[Depends(_BEARER)])
