"""What a browser and its user see: accessibility, light and dark, a phone, the keyboard, hostile text, an outage."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from events import PROGRESS_LEVELED_UP_TYPE
from tests.support.browser import Site

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
PHONE = {"width": 360, "height": 740}
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
_ERROR = """<div id="live" hx-get="/" hx-trigger="every 1s" hx-select="#live" hx-target="this" hx-swap="outerHTML">
The database is away for now.</div>"""


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


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["light", "dark"])
async def window(request: pytest.FixtureRequest, full: Site) -> Page:
    """An admin's window, light and dark."""
    return await full.signed_in(color_scheme=request.param)


@pytest.mark.parametrize("name", PAGES)
async def test_every_page_is_accessible(window: Page, name: str) -> None:
    await window.goto(PAGES[name])
    assert await _barriers(window) == []


async def test_the_sign_in_page_is_accessible(site: Site) -> None:
    for scheme in ("light", "dark"):
        page = await site.visitor(color_scheme=scheme)
        await page.goto("/")
        assert await _barriers(page) == []


async def test_light_and_dark_follow_the_browser(full: Site) -> None:
    shades = {}
    for scheme in ("light", "dark"):
        page = await full.signed_in(color_scheme=scheme)
        shades[scheme] = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert shades == {"light": "rgb(249, 250, 251)", "dark": "rgb(17, 24, 39)"}


async def test_a_phone_shows_every_page_count_and_button_without_a_scroll_sideways(full: Site) -> None:
    """Only tables scroll, and a count has its column's name beside it."""
    page = await full.signed_in(viewport=PHONE)
    widths, hidden = {}, {}
    for name, path in PAGES.items():
        await page.goto(path)
        widths[name] = await page.evaluate("document.documentElement.scrollWidth")
        hidden[name] = await page.evaluate(_BEYOND_THE_EDGE)
    assert widths == dict.fromkeys(PAGES, 360)
    assert hidden == {name: [] for name in PAGES}
    await page.goto(PAGES["dead letters"])
    count = page.locator("td.number").first
    await expect(count).to_have_text("2")
    assert await count.evaluate("cell => getComputedStyle(cell, '::before').content") == '"Open"'
    await expect(page.get_by_role("link", name="Replay all: malformed")).to_be_in_viewport(ratio=1)


async def test_each_outcome_is_beside_its_count(full: Site) -> None:
    page = await full.signed_in()
    table = page.locator("#events-table")
    await expect(table).to_contain_text("delay p50 up to 250 ms, p99 above 12 hours")
    cells = await table.locator("tbody tr").evaluate_all(
        "rows => rows.slice(1).map(row => [...row.cells].map(cell => cell.textContent))"
    )
    assert cells == [["applied", "120", "2,880"], ["dead lettered", "60", "1,440"]]


async def test_the_charts_show_the_last_hour_and_the_last_day(full: Site) -> None:
    page = await full.signed_in()
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
    page = await full.signed_in()
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


async def test_hostile_text_is_shown_as_text(full: Site) -> None:
    page = await full.signed_in()
    for name in ("user", "run", "runs", "dead letter", "dead letters", "audit"):
        await page.goto(PAGES[name])
        await expect(page.get_by_role("main")).to_contain_text("<script>")
        assert "taken" not in await page.title()
        assert await page.locator("main script, main img").count() == 0


async def test_everything_is_reached_by_the_keyboard(full: Site) -> None:
    """From the first page to a synced pair. The focus is visible."""
    await full.execute(
        "UPDATE user_licenses SET current_level = 2 WHERE user_id = 5 AND specialization_type = 'PLAYER'"
    )
    page = await full.visitor()
    await page.goto("/")
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
    page = await full.signed_in()
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
    page = await full.signed_in()
    await page.get_by_role("button", name="Keys").click()
    await page.get_by_label("Use these keys in this browser").uncheck()
    await page.get_by_role("button", name="Close").click()
    await page.reload()
    await page.keyboard.type("gr?")
    await expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
    await expect(page.locator("#verdict")).to_be_visible()


async def test_local_time_is_beside_utc(full: Site) -> None:
    """In the browser's zone, also after a refresh. In UTC there is nothing to add."""
    there = await full.signed_in(timezone_id="Asia/Tokyo", locale="en-GB")
    shown = there.locator("#verdict + p time")
    await expect(shown).to_have_text(
        re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC \(\d\d/\d\d/\d{4}, \d\d:\d\d:\d\d local\)$")
    )
    await _refreshed(there)
    await expect(shown).to_contain_text("local")
    here = await full.signed_in(timezone_id="UTC")
    await expect(here.locator("#verdict + p time")).to_have_text(re.compile("UTC$"))


async def test_an_instructor_sees_no_audit_log(full: Site) -> None:
    page = await full.signed_in("instructor")
    assert await page.get_by_role("link", name="Audit").count() == 0
    await page.keyboard.type("ga")
    answer = await page.goto("/page/audit")
    assert answer is not None
    assert answer.status == 403
    full.complaints[:] = [said for said in full.complaints if "403" not in said]


async def test_every_list_can_be_downloaded_as_csv(full: Site) -> None:
    """With the list's own filters. A cell that a spreadsheet would calculate begins with an apostrophe."""
    await full.execute("UPDATE levelsync.dead_letters SET detail = '=1+1' WHERE \"offset\" = 2")
    page = await full.signed_in()
    for address, name in {
        "/page/runs": "levelsync-runs.csv",
        PAGES["run"]: f"levelsync-issues-{RUN}.csv",
        "/page/dead-letters?text=%3D1": "levelsync-dead-letters.csv",
        "/page/audit?action=sign_in": "levelsync-audit.csv",
    }.items():
        await page.goto(address)
        async with page.expect_download() as download:
            await page.get_by_role("link", name="All as CSV").click()
        assert (await download.value).suggested_filename == name
        path = await (await download.value).path()
        lines = (await asyncio.to_thread(path.read_text, encoding="utf-8")).splitlines()
        assert len(lines) == 2
        assert ("'=1+1" in lines[1]) == ("dead-letters" in name)


async def test_the_first_tab_skips_to_the_content(full: Site) -> None:
    page = await full.signed_in()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile("#main$"))


async def test_without_scripts_everything_but_the_refresh_works(full: Site) -> None:
    await full.execute("UPDATE user_licenses SET current_level = 2 WHERE specialization_type = 'PLAYER'")
    page = await full.visitor(java_script_enabled=False)
    await page.goto("/page/users/5/sync?specialization=PLAYER&direction=highest")
    await page.get_by_label("Token").fill(full.token("instructor"))
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("button", name="Write 1 level").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Done")


async def test_a_failed_refresh_replaces_the_overview_with_a_sentence(full: Site) -> None:
    """Old numbers do not stay, and the page recovers by itself."""
    page = await full.signed_in()
    away = {"status": 503, "content_type": "text/html", "body": _ERROR}
    await page.route(f"{full.url}/", lambda route: route.fulfill(**away))
    await expect(page.locator("#live")).to_contain_text("away for now")
    await page.unroute(f"{full.url}/")
    await expect(page.locator("#verdict")).to_be_visible(timeout=15_000)
    full.complaints[:] = [said for said in full.complaints if "503" not in said]


async def _refreshed(page: Page) -> None:
    shown = page.locator("#verdict + p time")
    await expect(shown).not_to_have_attribute("datetime", str(await shown.get_attribute("datetime")))


async def _barriers(page: Page) -> list[tuple[str, list[object]]]:
    """Return what axe finds, by rule."""
    found = (await Axe().run(page)).response
    assert found["passes"]  # axe has run its rules
    return [(one["id"], [node["target"] for node in one["nodes"]]) for one in found["violations"]]


async def _tab_to(page: Page, name: str) -> None:
    wanted = (
        page.get_by_role("link", name=name, exact=True)
        .or_(page.get_by_role("button", name=name, exact=True))
        .or_(page.get_by_role("textbox", name=name, exact=True))
    )
    for _ in range(60):
        await page.keyboard.press("Tab")
        if await wanted.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"{name} is not reached by the keyboard")
