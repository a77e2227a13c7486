"""What a browser and its user see: accessibility, light and dark, a phone, the keyboard, hostile text, an outage."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from typing import Literal

import httpx
import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, ViewportSize, expect
from sqlalchemy.ext.asyncio import AsyncEngine

from events import PROGRESS_LEVELED_UP_TYPE
from service.settings import Settings
from service.web.api.app import openapi_document
from service.web.page.session import SESSION
from tests.support.api import serving
from tests.support.browser import Site
from tests.support.links import Way

pytestmark = pytest.mark.asyncio(loop_scope="module")
RUN = "00000000-0000-4000-8000-000000000001"
HOSTILE = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
PAGES = {
    "overview": "/",
    "runs": "/page/runs",
    "run": f"/page/runs/{RUN}",
    "execute": f"/page/runs/{RUN}/execute",
    "users": "/page/users?q=student",
    "no user": "/page/users?q=nobody",
    "user": "/page/users/5",
    "sync": "/page/users/5/sync?direction=progress_to_license",
    "dead letters": "/page/dead-letters?reason=malformed",
    "dead letter": "/page/dead-letters/1",
    "discard": "/page/dead-letters/discard?reason=malformed",
    "audit": "/page/audit",
}
WITH_HOSTILE_TEXT = {PAGES[name] for name in ("user", "run", "runs", "dead letter", "dead letters", "audit")}
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
PHONE = ViewportSize(width=360, height=740)
_LETTER = """
    INSERT INTO levelsync.dead_letters
           (topic, partition, "offset", record_timestamp, key, value, headers, reason, detail)
    VALUES ('progress.leveled-up', 0, :offset, 1700000000000, '5', :value, '[{"key": "ce_id", "value": "<b>"}]',
            'malformed', :detail)
"""
_RUN = """
    INSERT INTO levelsync.reconcile_runs
           (id, status, step, direction, dry_run, force, finished_at, counts, requested_by)
    VALUES (:id, 'completed', 'done', 'highest', true, false, now(),
            '{"scanned": 1000, "mismatched": 1, "left_by": [["mismatched", "PLAYER", 1]]}', :by)
"""
_ISSUE = """
    INSERT INTO levelsync.drift_issues (run_id, user_id, specialization, kind, progress_level, license_level, status)
    VALUES (:id, 5, 'PLAYER', 'mismatched', 4, 2, 'confirmed')
"""
_ACTION = """
    INSERT INTO levelsync.admin_actions (subject, role, action, arguments, outcome, detail, client_address, times)
    VALUES (:who, 'none', 'sign_in', '{"user_id": 5}', 'failed', :who, '192.0.2.7', 3)
"""
_SAMPLES = """
    INSERT INTO levelsync.minute_samples
    SELECT date_trunc('minute', now()) - n * interval '1 minute',
           jsonb_build_object(:kind || ' applied', 2, :kind || ' dead_lettered', 1),
           jsonb_build_object(:kind || ' 0.25', 9, :kind || ' +Inf', 1), 7, 3, 2
      FROM generate_series(-60, 1500) n
"""
"""Also of the next hour: the tests take their time."""

_BEYOND_THE_EDGE = """() => [...document.querySelectorAll("main a.btn, main button, main .number")]
    .filter(one => one.getBoundingClientRect().width > 1 && !one.closest("thead"))
    .filter(one => one.getBoundingClientRect().right > innerWidth || one.getBoundingClientRect().left < 0)
    .map(one => one.textContent.trim())"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def full(site: Site) -> AsyncIterator[Site]:
    """Something of everything, some of it hostile: drift, a run, a history, a fence, dead letters."""
    await site.levels({(5, "PLAYER"): 4, (5, "COACH"): 3}, {(5, "PLAYER"): 2, (5, "GOALKEEPER"): 1})
    await site.execute("UPDATE users SET name = :name WHERE id = 5", name=HOSTILE)
    await site.execute(_RUN, id=RUN, by=HOSTILE)
    await site.execute(_ISSUE, id=RUN)
    await site.execute(_LETTER, offset=1, value=HOSTILE.encode(), detail=HOSTILE)
    await site.execute(_LETTER, offset=2, value=b"x" * 3000, detail="y" * 300)
    await site.execute("INSERT INTO levelsync.fences VALUES (5, 'PLAYER', now(), 2, 'sync by 1')")
    await site.execute(
        "INSERT INTO license_progressions (user_license_id, from_level, to_level, advancement_reason) "
        "SELECT id, 1, 2, :why FROM user_licenses WHERE user_id = 5 AND specialization_type = 'PLAYER'",
        why=HOSTILE,
    )
    await site.execute(_ACTION, who=HOSTILE)
    await site.execute(_SAMPLES, kind=PROGRESS_LEVELED_UP_TYPE)
    yield site


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=PAGES)
async def opened(request: pytest.FixtureRequest, full: Site) -> Page:
    """Each page in turn, loaded once for all tests of this fixture."""
    return await full.open(PAGES[request.param])


async def test_every_page_is_accessible_in_light_and_dark(opened: Page) -> None:
    assert await _barriers(opened) == []


async def test_hostile_text_is_shown_as_text(opened: Page, full: Site) -> None:
    if opened.url.removeprefix(full.url) in WITH_HOSTILE_TEXT:
        await expect(opened.get_by_role("main")).to_contain_text("<script>")
    assert "taken" not in await opened.title()
    assert await opened.locator("main script, main img").count() == 0


async def test_a_phone_shows_every_page_count_and_button_without_a_scroll_sideways(opened: Page) -> None:
    """Only tables scroll."""
    await opened.set_viewport_size(PHONE)
    assert await opened.evaluate("document.documentElement.scrollWidth") == 360
    assert await opened.evaluate(_BEYOND_THE_EDGE) == []


async def test_a_phone_shows_the_name_of_its_column_beside_a_count(full: Site) -> None:
    page = await full.open(PAGES["dead letters"])
    await page.set_viewport_size(PHONE)
    count = page.locator("td.number").first
    await expect(count).to_have_text("2")
    assert await count.evaluate("cell => getComputedStyle(cell, '::before').content") == '"Open"'
    await expect(page.get_by_role("link", name="Replay all: malformed")).to_be_in_viewport(ratio=1)


async def test_the_sign_in_page_is_accessible_in_light_and_dark(site: Site) -> None:
    assert await _barriers(await site.open(role=None)) == []


async def test_light_and_dark_follow_the_browser(full: Site) -> None:
    page, shades = await full.open("/page/users"), {}
    for scheme in SCHEMES:
        await _use(page, scheme)
        shades[scheme] = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert shades == {"light": "rgb(249, 250, 251)", "dark": "rgb(17, 24, 39)"}


async def test_each_outcome_is_beside_its_count(full: Site) -> None:
    page = await full.open()
    table = page.locator("#events-table")
    await expect(table).to_contain_text("delay p50 up to 250 ms, p99 above 12 hours")
    cells = await table.locator("tbody tr").evaluate_all(
        "rows => rows.slice(1).map(row => [...row.cells].map(cell => cell.textContent))"
    )
    assert cells == [["applied", "120", "2,880"], ["dead lettered", "60", "1,440"]]


async def test_the_charts_show_the_last_hour_and_the_last_day(full: Site) -> None:
    page = await full.open()
    charts = page.locator("#trends article")
    titles = await charts.get_by_role("heading", level=3).all_text_contents()
    assert titles == [
        "Events a second, by outcome",
        "Delay from event to effect",
        "Records waiting",
        "Pairs that disagree",
        "Open dead letters",
    ]
    assert await charts.get_by_role("img").count() == 10
    said = await charts.first.get_by_role("img").first.get_attribute("aria-label")
    assert said == (
        "Events a second, by outcome, last hour. applied: last 0.0333, highest 0.0333; "
        "dead lettered: last 0.0167, highest 0.0167."
    )
    await page.get_by_text("Last hour as a table").nth(2).click()
    first = page.get_by_role("group", name="Records waiting, last hour").get_by_role("row").nth(1)
    await expect(first).to_have_text(re.compile(r"^\d\d:\d\d7$"))
    for name in ("Counts by type", "Lag by partition", "The letters"):
        await expect(charts.get_by_role("link", name=name).first).to_be_visible()
    assert await page.locator("#trends [style], #trends style, #trends script").count() == 0


async def test_a_refresh_keeps_open_tables_and_the_focus(full: Site) -> None:
    """The overview is fetched again every second here."""
    page = await full.open()
    await page.get_by_text("Last day as a table").first.click()
    await page.get_by_text("By partition", exact=True).click()
    table = page.get_by_role("group", name="Events a second, by outcome, last day")
    row = page.locator("#partitions").get_by_role("row", name="progress.leveled-up").first
    link = page.locator("#letters-malformed")
    await link.focus()
    for opened in (table, row):
        await expect(opened).to_be_visible()
    await _refreshed(page)
    for opened in (table, row):
        await expect(opened).to_be_visible()
    await expect(link).to_be_focused()


async def test_everything_is_reached_by_the_keyboard(full: Site) -> None:
    """From the first page to a synced pair. The focus is visible."""
    await full.execute(
        "UPDATE user_licenses SET current_level = 2 WHERE user_id = 5 AND specialization_type = 'PLAYER'"
    )
    page = await full.open(role=None)
    await _tab_to(page, "Token")
    await page.keyboard.insert_text(full.token("instructor"))
    await _tab_to(page, "Sign in")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    await _tab_to(page, "Users")
    await page.keyboard.press("Enter")
    await _tab_to(page, "Id or e-mail address")
    await page.keyboard.type("5")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("User 5")
    await _tab_to(page, "Sync PLAYER, highest")
    await page.keyboard.press("Enter")
    await _tab_to(page, "Write 1 level")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert await page.evaluate(outline) == "solid"
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Done")


async def test_keys_lead_to_every_page(full: Site) -> None:
    page = await full.open("/page/users")
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    assert await _barriers(page) == []
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
    for letter, heading in {"r": "Runs", "u": "Find a user", "d": "Dead letters", "a": "Audit"}.items():
        await page.keyboard.type(f"g{letter}")
        await expect(page.get_by_role("heading", level=1)).to_have_text(heading)
    await page.keyboard.press("/")
    await expect(page.get_by_label("Subject")).to_be_focused()
    await page.keyboard.type("g?/gr")
    await expect(page.get_by_label("Subject")).to_have_value("g?/gr")
    await page.goto("/")
    await page.keyboard.press("/")
    await expect(page.get_by_label("Id or e-mail address")).to_be_visible()


async def test_keys_can_be_turned_off(full: Site) -> None:
    """Speech input presses keys unintentionally (WCAG 2.1.4). The browser remembers the choice."""
    async with full.visitor("admin") as page:
        await page.goto("/page/users")
        await page.get_by_role("button", name="Keys").click()
        await page.get_by_label("Use these keys in this browser").uncheck()
        await page.get_by_role("button", name="Close").click()
        await page.reload()
        await page.keyboard.type("gr?")
        await expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Find a user")


async def test_local_time_is_beside_utc(full: Site) -> None:
    """In the browser's zone, also after a refresh. In UTC there is nothing to add."""
    beside = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC \(\d\d/\d\d/\d{4}, \d\d:\d\d:\d\d local\)$")
    async with full.visitor("admin", timezone_id="Asia/Tokyo", locale="en-GB") as there:
        await there.goto("/")
        shown = there.locator("#verdict + p time")
        await expect(shown).to_have_text(beside)
        await _refreshed(there)
        await expect(shown).to_contain_text("local")
    async with full.visitor("admin", timezone_id="UTC") as here:
        await here.goto("/")
        await expect(here.locator("#verdict + p time")).to_have_text(re.compile("UTC$"))


async def test_every_list_can_be_downloaded_as_csv(full: Site) -> None:
    """With the list's own filters. A cell that a spreadsheet would calculate begins with an apostrophe."""
    await full.execute("UPDATE levelsync.dead_letters SET detail = '=1+1' WHERE \"offset\" = 2")
    lists = {
        "/page/runs": "levelsync-runs.csv",
        PAGES["run"]: f"levelsync-issues-{RUN}.csv",
        "/page/dead-letters?text=%3D1": "levelsync-dead-letters.csv",
        "/page/audit?action=sign_in": "levelsync-audit.csv",
    }
    async with httpx.AsyncClient(base_url=full.url, cookies={SESSION: full.token()}) as client:
        for address, name in lists.items():
            (link,) = re.findall(r'href="([^"]*)">All as CSV', (await client.get(address)).text)
            answer = await client.get(html.unescape(link))
            assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
            lines = answer.text.splitlines()
            assert len(lines) == 2
            assert ("'=1+1" in lines[1]) == ("dead-letters" in name)


async def test_the_first_tab_skips_to_the_content(full: Site) -> None:
    page = await full.open("/page/users")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile("#main$"))


async def test_without_scripts_everything_but_the_refresh_works(full: Site) -> None:
    await full.execute("UPDATE user_licenses SET current_level = 2 WHERE specialization_type = 'PLAYER'")
    async with full.visitor(java_script_enabled=False) as page:
        await page.goto("/page/users/5/sync?specialization=PLAYER&direction=highest")
        await page.get_by_label("Token").fill(full.token("instructor"))
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("button", name="Write 1 level").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Done")


async def test_an_outage_is_shown_with_the_last_values_and_the_page_recovers(
    chromium: Browser, page_settings: Settings, page_engine: AsyncEngine
) -> None:
    """Old numbers do not stay as the answers to the questions."""
    async with Way(page_settings.database_url.get_secret_value()) as way:
        settings = page_settings.model_copy(update={"database_url": way.url})
        async with serving(settings) as served, Site(chromium, served, settings, page_engine) as away:
            page = await away.open()
            await page.set_viewport_size(PHONE)
            await expect(page.locator("#verdict")).to_be_visible()
            way.open.clear()
            await expect(page.locator("#outage")).to_be_visible(timeout=20_000)
            await expect(page.locator("#verdict")).to_have_count(0)
            await expect(page.locator("#last")).to_be_visible()
            await expect(page.locator("#trends-title")).to_be_visible()
            assert await page.evaluate("document.documentElement.scrollWidth") == 360
            way.open.set()
            await expect(page.locator("#verdict")).to_be_visible(timeout=20_000)


async def test_the_page_of_the_api_documents_lists_every_endpoint(site: Site) -> None:
    """It needs no other server."""
    page = await site.open("/docs")
    endpoints = [method for methods in openapi_document()["paths"].values() for method in methods]
    await expect(page.locator(".opblock")).to_have_count(len(endpoints))


async def _refreshed(page: Page) -> None:
    shown = page.locator("#verdict + p time")
    await expect(shown).not_to_have_attribute("datetime", str(await shown.get_attribute("datetime")))


async def _use(page: Page, scheme: Scheme) -> None:
    """Switch the page to a colour scheme, and end the transitions of its colours."""
    await page.emulate_media(color_scheme=scheme)
    await page.evaluate("document.getAnimations().forEach(one => one.finish())")


async def _barriers(page: Page) -> list[tuple[str, str, list[object]]]:
    """Return what axe finds, by colour scheme and rule."""
    found: list[tuple[str, str, list[object]]] = []
    for scheme in SCHEMES:
        await _use(page, scheme)
        said = (await Axe().run(page)).response
        assert said["passes"]  # axe has run its rules
        found += [(scheme, one["id"], [node["target"] for node in one["nodes"]]) for one in said["violations"]]
    return found


async def _tab_to(page: Page, name: str) -> None:
    wanted = (
        page.get_by_role("link", name=name, exact=True)
        .or_(page.get_by_role("button", name=name, exact=True))
        .or_(page.get_by_role("textbox", name=name, exact=True))
    )
    element = await wanted.element_handle()  # found once, because a search by role is slow
    for _ in range(60):
        await page.keyboard.press("Tab")
        if await element.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"{name} is not reached by the keyboard")
