"""A real service with every role in this process, and a real Chromium, both once a module."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest
import pytest_asyncio
from playwright.async_api import Browser
from sqlalchemy.ext.asyncio import AsyncEngine

from service.process import watch
from service.process.runtime import Service
from service.reconcile import steps
from service.settings import Settings
from service.store.engine import make_engine
from service.web.page import overview
from tests.support.browser import Site, browser_path, launched
from tests.support.servers import Kafka, Postgres, settings_for
from tests.support.tokens import SECRET


@pytest.fixture(scope="module")
def often() -> Iterator[None]:
    """Measure gauges and continue runs within a fraction of a second; fetch the overview every second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch, "LOOK_EVERY", 0.2)
        patch.setattr(steps, "LOOK_EVERY", 0.05)
        patch.setattr(steps, "POLL_SECONDS", 0.1)
        patch.setattr(overview, "REFRESH", 1)
        patch.setattr(watch, "_minute", lambda: 0)  # only a test's own samples
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page_settings(postgres: Postgres, kafka: Kafka, template_database: str) -> AsyncIterator[Settings]:
    """Settings for the module's own database. Without a schedule, all runs are the test's."""
    url = await postgres.create_database(template_database)
    grace = timedelta(milliseconds=200)
    yield settings_for(url, kafka, jwt_secret=SECRET, reconcile_every=timedelta(0), reconcile_grace=grace)
    await postgres.drop_database(url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(page_settings: Settings, kafka: Kafka, often: None) -> AsyncIterator[Service]:  # noqa: ARG001 - quick
    """Every role, on empty topics."""
    await kafka.fresh_topics(keep_empty=True)
    async with Service(page_settings) as started:
        await asyncio.wait_for(started.ready(), 60)
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page_engine(page_settings: Settings) -> AsyncIterator[AsyncEngine]:
    made = make_engine(page_settings)
    yield made
    await made.dispose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    """Debian's Chromium."""
    if browser_path() is None:
        pytest.skip("no Chromium: apt-get install chromium")
    async with launched() as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(chromium: Browser, service: Service, page_engine: AsyncEngine) -> AsyncIterator[Site]:
    async with Site(chromium, service.http_url, service.settings, page_engine) as made:
        yield made


@pytest.fixture(autouse=True)
def _nothing_to_complain_about(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check after each test that there was no console error, no violated policy and no foreign request."""
    yield
    if "site" in request.fixturenames:
        site: Site = request.getfixturevalue("site")
        complaints, site.complaints[:] = list(site.complaints), []
        assert complaints == []
