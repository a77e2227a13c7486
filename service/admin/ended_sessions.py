"""Tokens that somebody signed out with: no process accepts them again, on the page or in the API."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.admin.database import asked
from service.admin.errors import NotSignedIn

_END_SESSION = text("""
    INSERT INTO levelsync.ended_sessions (token_digest, ends_at) VALUES (:digest, :ends_at) ON CONFLICT DO NOTHING
""")
_FORGET = text("DELETE FROM levelsync.ended_sessions WHERE ends_at < clock_timestamp() - interval '1 hour'")
"""An hour beyond what any leeway allows: an expired token is refused for being expired."""
_ALL = text("SELECT token_digest FROM levelsync.ended_sessions")
_IS_ENDED = text("SELECT EXISTS (SELECT FROM levelsync.ended_sessions WHERE token_digest = :digest)")


async def end(engine: AsyncEngine, token: str, ends_at: datetime) -> None:
    """Refuse the token from now on.

    Raises:
        Busy: the database cannot answer; the token stays good.
    """
    with asked():
        async with engine.begin() as conn:
            await conn.execute(_FORGET)
            await conn.execute(_END_SESSION, {"digest": digest(token), "ends_at": ends_at})


async def read(engine: AsyncEngine) -> set[bytes]:
    """Return the digests of all tokens that were signed out and may not have expired.

    Raises:
        Busy: the database cannot answer.
    """
    with asked():
        async with engine.connect() as conn:
            return set((await conn.execute(_ALL)).scalars())


async def check(engine: AsyncEngine, token: str) -> None:
    """Let a token pass that nobody signed out with.

    Raises:
        NotSignedIn: somebody did.
        Busy: the database cannot answer.
    """
    with asked():
        async with engine.connect() as conn:
            ended = (await conn.execute(_IS_ENDED, {"digest": digest(token)})).scalar_one()
    if ended:
        raise NotSignedIn("The token was signed out: a new one is needed.")


def digest(token: str) -> bytes:
    """Return what is stored of a token: nobody can sign in with it."""
    return sha256(token.encode()).digest()
