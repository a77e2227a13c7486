"""The application's own tokens, and somebody who calls levelsync's endpoints with one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import jwt

APPLICATION_SECRET = "the-SECRET_KEY-of-the-application-which-signs-its-own-tokens"  # noqa: S105 - of the tests only
PREFIX = "/api/v1/licenses/admin/sync"


def application_token(email: str) -> str:
    """Sign what the application signs at a login: the address as subject, and no role."""
    claims = {"sub": email, "exp": datetime.now(UTC) + timedelta(minutes=30), "type": "access"}
    return jwt.encode(claims, APPLICATION_SECRET, algorithm="HS256")


def client(url: str, email: str) -> httpx.AsyncClient:
    """Give a client that is signed in at the application."""
    headers = {"Authorization": f"Bearer {application_token(email)}"}
    return httpx.AsyncClient(base_url=f"{url}{PREFIX}", headers=headers, timeout=40)
