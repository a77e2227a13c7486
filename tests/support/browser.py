"""A user of the page, in Debian's Chromium."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self
from urllib.parse import urlsplit

from playwright.async_api import Browser, ConsoleMessage, Page, Request, ViewportSize, async_playwright, expect
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay

from service.settings import Settings
from service.web.page.session import SESSION
from tests.support.tables import Levels, insert_levels, read
from tests.support.tokens import token
from tests.support.waiting import eventually

PATIENCE = 30_000
"""Milliseconds: a bound for a busy machine, not a measurement."""
_DESK = ViewportSize(width=1280, height=720)
expect.set_options(timeout=PATIENCE)
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_DISABLED = ("gpu", "quic", "background-networking", "component-update", "sync")
_ARGUMENTS = ["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in _DISABLED)]
"""Root has no sandbox."""


def browser_path() -> str | None:
    """Return the path of a browser, or None."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


@asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """A browser without a window."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=browser_path(), args=_ARGUMENTS)
        yield browser
        await browser.close()


_EMPTY = """
    TRUNCATE public.license_progressions, public.user_licenses, public.specialization_progress,
             levelsync.dead_letters, levelsync.fences, levelsync.reconcile_runs RESTART IDENTITY CASCADE
"""


class Site(AsyncExitStack):
    """The page of one service, in one window for all tests of a module."""

    def __init__(self, browser: Browser, url: str, settings: Settings, engine: AsyncEngine) -> None:
        super().__init__()
        self.url = url
        self.engine = engine
        self.complaints: list[str] = []
        """Errors of scripts, warnings of the console, and requests to other servers. No page may cause one."""
        self._browser = browser
        self._settings = settings

    async def __aenter__(self) -> Self:
        self._window = await self.enter_async_context(self.visitor())
        return self

    def token(self, role: str = "admin") -> str:
        return token(self._settings, role)

    async def open(self, path: str = "/", role: str | None = "admin") -> Page:
        """Open a page in the module's window, signed in with a role, or signed out if the role is None."""
        await self._window.set_viewport_size(_DESK)
        await self._window.emulate_media(color_scheme="light")
        await self._window.context.clear_cookies()
        await self._sign_in(self._window, role)
        await self._window.goto(path)
        return self._window

    @asynccontextmanager
    async def visitor(self, role: str | None = None, **options: Any) -> AsyncIterator[Page]:
        """Yield a new, empty window. `options` are Playwright's, for example `timezone_id`."""
        async with await self._browser.new_context(base_url=self.url, **options) as context:
            context.set_default_timeout(PATIENCE)
            page = await context.new_page()
            page.on("console", self._heard)
            page.on("pageerror", lambda error: self.complaints.append(f"script failed: {error}"))
            page.on("request", self._requested)
            await self._sign_in(page, role)
            yield page

    async def _sign_in(self, page: Page, role: str | None) -> None:
        if role is not None:
            await page.context.add_cookies([{"name": SESSION, "value": self.token(role), "url": self.url}])

    async def levels(self, progress: Levels, licenses: Levels) -> None:
        """Replace the rows of the application's tables, and empty levelsync's own."""
        # The service runs and locks in another order. This gives way before a read of the service waits for a second,
        # because PostgreSQL would then end the read with a deadlock.
        async for attempt in AsyncRetrying(stop=stop_after_delay(60), retry=retry_if_exception_type(DBAPIError)):
            with attempt:
                async with self.engine.begin() as conn:
                    await conn.execute(text("SET LOCAL lock_timeout = '100ms'"))
                    await conn.execute(text(_EMPTY))
                    await insert_levels(conn, progress, licenses)

    async def execute(self, statement: str, **values: object) -> None:
        async with self.engine.begin() as conn:
            await conn.execute(text(statement), values)

    async def rows(self, query: str, **values: object) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await read(self.engine, query, **values)]

    async def until(self, query: str) -> None:
        """Wait until a query has a row."""
        await eventually(lambda: self.rows(query))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"console: {message.text}")

    def _requested(self, request: Request) -> None:
        if urlsplit(request.url).scheme not in {"data", "blob"} and not request.url.startswith(f"{self.url}/"):
            self.complaints.append(f"request to {request.url}")
