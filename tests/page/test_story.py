"""The whole story by clicks, in a real browser, on a real service with all its roles."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import uuid4

import pytest
from playwright.async_api import Page, expect

from events import ProgressLeveledUp
from tests.support.browser import Site
from tests.support.topics import Publish, Record

pytestmark = pytest.mark.asyncio(loop_scope="module")
LEVELS = "SELECT user_id, specialization_type, current_level FROM user_licenses ORDER BY 1, 2"
LETTERS = """
    INSERT INTO levelsync.dead_letters (topic, partition, "offset", record_timestamp, value, reason, detail)
    SELECT 'progress.leveled-up', 0, n, 0, 'x', CASE n WHEN 5 THEN 'unknown_user' ELSE 'malformed' END, 'letter ' || n
      FROM generate_series(1, 5) n
"""
OPEN_LETTERS = "SELECT id, reason FROM levelsync.dead_letters WHERE resolved_at IS NULL ORDER BY 1"
AUDIT = "SELECT action, outcome FROM levelsync.admin_actions WHERE action <> 'read' ORDER BY id DESC LIMIT 1"


async def press(page: Page, name: str | re.Pattern[str]) -> None:
    await page.get_by_role("link", name=name).or_(page.get_by_role("button", name=name)).first.click()


async def dry_run(site: Site) -> Page:
    """Start a dry run, and return its page when it has ended."""
    page = await site.open("/page/runs")
    await press(page, "Start the dry run")
    await expect(page.locator("#result")).to_be_visible()
    return page


async def test_drift_is_found_read_healed_and_gone(site: Site) -> None:
    await site.levels({(5, "PLAYER"): 4, (6, "COACH"): 3, (7, "PLAYER"): 2}, {(5, "PLAYER"): 2, (7, "PLAYER"): 2})
    page = await site.open(role=None)
    await page.get_by_label("Token").fill(site.token())
    await press(page, "Sign in")
    await page.get_by_role("navigation").get_by_role("link", name="Runs").click()
    await press(page, "Start the dry run")
    await expect(page.locator("#result")).to_contain_text("would change 2 pairs")
    issues = page.get_by_role("region", name="Issues").get_by_role("row")
    await expect(issues).to_have_text(
        [
            re.compile("User"),
            re.compile(r"5.*PLAYER.*mismatched.*4.*2.*confirmed", re.DOTALL),
            re.compile(r"6.*COACH.*missing license.*3.*-.*confirmed", re.DOTALL),
        ]
    )
    await press(page, "Execute for real…")
    await expect(page.get_by_role("main")).to_contain_text("It will change 2 pairs")
    assert await site.rows(LEVELS) == [(5, "PLAYER", 2), (7, "PLAYER", 2)]  # the question changed nothing
    await press(page, "Change 2 pairs")
    await expect(page.locator("#result")).to_contain_text("It healed 2 pairs.")
    assert await site.rows(LEVELS) == [(5, "PLAYER", 4), (6, "COACH", 3), (7, "PLAYER", 2)]
    await dry_run(site)
    await expect(page.locator("#result")).to_have_text("Nothing differs that a run would change.")
    await page.get_by_role("link", name="Overview").click()
    await expect(page.locator("#answer-drift")).to_contain_text("No.")


async def test_a_falling_level_is_first_and_named_on_the_button(site: Site) -> None:
    """The issues are sorted and filtered by links and a form."""
    await site.levels({(5, "PLAYER"): 4, (7, "PLAYER"): 1}, {(5, "PLAYER"): 2, (7, "PLAYER"): 3})
    page = await dry_run(site)
    await expect(page.locator("#result")).to_contain_text("would change 2 pairs, and lower 1 level.")
    issues = page.get_by_role("region", name="Issues").get_by_role("row")
    first = re.compile(r"^\s*7.*level falls", re.DOTALL)
    await expect(issues.nth(1)).to_have_text(first)
    await page.locator("#sort-user").click()
    await expect(issues.nth(2)).to_have_text(first)
    await press(page, "Falling levels first")
    await expect(issues.nth(1)).to_have_text(first)
    await page.get_by_label("only falling levels").check()
    await press(page, "Show")
    await expect(issues).to_have_count(2)
    await press(page, "Execute for real…")
    await press(page, "Change 2 pairs, lower 1 level")
    await expect(page.locator("#result")).to_contain_text("It healed 2 pairs.")
    assert await site.rows(LEVELS) == [(5, "PLAYER", 4), (7, "PLAYER", 1)]


async def test_letters_that_are_checked_are_discarded_together(site: Site) -> None:
    await site.levels({}, {})
    await site.execute(LETTERS)
    page = await site.open("/page/dead-letters")
    for number in (2, 4):
        await page.get_by_label(f"Choose letter {number}").check()
    await press(page, "Discard the checked letters…")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Discard 2 dead letters?")
    await press(page, "Discard 2 letters")
    await expect(page.get_by_role("heading", level=1)).to_have_text("2 letters discarded")
    assert await site.rows(OPEN_LETTERS) == [(1, "malformed"), (3, "malformed"), (5, "unknown_user")]
    await press(page, "To the dead letters")
    await press(page, "Replay the checked letters…")
    await expect(page.get_by_role("main")).to_contain_text("Check at least one")
    site.complaints[:] = [said for said in site.complaints if "422" not in said]
    await page.goto("/page/dead-letters")
    await page.get_by_label("Text").fill("LETTER 3")
    await press(page, "Show")
    await expect(page.get_by_label("Choose letter 3")).to_be_visible()
    await expect(page.get_by_label("Choose letter 1")).to_have_count(0)


async def test_the_overview_shows_drift_by_kind_and_specialization(site: Site) -> None:
    await site.levels({(5, "PLAYER"): 4, (6, "PLAYER"): 4, (6, "COACH"): 3}, {(5, "PLAYER"): 2, (6, "PLAYER"): 1})
    page = await dry_run(site)
    await page.get_by_role("link", name="Overview").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Running.")
    await expect(page.locator("#answer-drift")).to_contain_text("3 pairs disagree")
    await expect(page.locator("#drift-table").get_by_role("row")).to_have_text(
        [
            re.compile(r"Kind\s*COACH\s*PLAYER"),
            re.compile(r"mismatched\s*0\s*2"),
            re.compile(r"missing license\s*1\s*0"),
        ]
    )
    await press(page, "Its issues")
    await expect(page.locator("#count-mismatched")).to_have_text("2")


async def test_a_dead_letter_is_opened_replayed_and_closed(site: Site, publish: Publish) -> None:
    await site.levels({}, {})
    await publish([Record(*ProgressLeveledUp(user_id=901, specialization="PLAYER", to_level=3).to_kafka())])
    page = await site.open()
    await expect(page.locator("#answer-stuck")).to_contain_text("1 dead letter is open")  # without a reload
    await press(page, "1 dead letter is open")
    await page.get_by_role("region", name="Newest first").get_by_role("rowheader").get_by_role("link").click()
    await expect(page.get_by_role("group", name="Value")).to_contain_text('"user_id": 901')
    await expect(page.locator("#now")).to_contain_text("no")
    await site.execute("INSERT INTO users (id, name, email) VALUES (901, 'Late', 'late@example.org')")
    await page.reload()
    await expect(page.locator("#now")).to_contain_text("yes its user exists now")
    await press(page, "Replay…")
    await expect(page.get_by_role("main")).to_contain_text("This sends 1 record unchanged to its topic again")
    await press(page, "Replay 1 letter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("1 record sent again")
    await site.until("SELECT 1 FROM user_licenses WHERE user_id = 901 AND current_level = 3")
    await press(page, "To the letter")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("replayed")


async def test_all_letters_of_a_reason_are_discarded_and_no_other(site: Site) -> None:
    await site.levels({}, {})
    await site.execute(LETTERS)
    page = await site.open()
    await page.get_by_role("link", name="Dead letters", exact=True).click()
    await press(page, re.compile("Discard all: malformed"))
    await expect(page.get_by_role("main")).to_contain_text("This closes 4 letters without applying them")
    await press(page, "Discard 4 letters")
    await expect(page.get_by_role("heading", level=1)).to_have_text("4 letters discarded")
    assert await site.rows(OPEN_LETTERS) == [(5, "unknown_user")]
    assert await site.rows(AUDIT) == [("discard_letters", "done")]


async def test_a_user_is_found_and_synced(site: Site) -> None:
    await site.levels({(5, "PLAYER"): 2, (5, "COACH"): 1}, {(5, "PLAYER"): 4, (5, "COACH"): 1})
    page = await site.open("/page/runs", "instructor")
    await page.get_by_role("link", name="Users").click()
    await page.get_by_label("Id or e-mail address").fill("student5@example.org")
    await press(page, "Find")
    await expect(page.get_by_role("heading", level=1)).to_have_text("User 5")
    await expect(page.locator("#card-PLAYER")).to_contain_text("mismatched")
    await expect(page.locator("#card-COACH")).to_contain_text("in agreement")
    await press(page, "Sync PLAYER, progress to license")
    await expect(page.get_by_role("main")).to_contain_text("The level falls, and a fence prevents older events")
    await expect(page.get_by_role("row", name="PLAYER")).to_contain_text("4 → 2")
    await press(page, "Write 1 level")
    await expect(page.get_by_role("row", name="PLAYER")).to_contain_text("license level changed from 4 to 2")
    assert await site.rows(LEVELS) == [(5, "COACH", 1), (5, "PLAYER", 2)]
    await press(page, "To user 5")
    await expect(page.get_by_role("region", name="Fences")).to_contain_text("sync progress_to_license by 1")
    await expect(page.get_by_role("region", name="History of the licenses")).to_contain_text("4 → 2")


async def test_a_missing_row_is_made_in_one_way(site: Site) -> None:
    await site.levels({(5, "COACH"): 3}, {(5, "PLAYER"): 4})
    page = await site.open("/page/users/5")
    assert await page.locator("#card-COACH .choices").all_inner_texts() == ["Create the missing row… both at 3"]
    await press(page, "Create the missing row of PLAYER")
    await press(page, "Write 1 level")
    await expect(page.get_by_role("row", name="PLAYER")).to_contain_text("progress")
    assert (5, "COACH") not in {(user, name) for user, name, _ in await site.rows(LEVELS)}


async def test_a_run_shows_pairs_that_need_a_decision(site: Site) -> None:
    await site.levels({(5, "PLAYER"): 9}, {(5, "PLAYER"): 3})
    page = await dry_run(site)
    await expect(page.locator("#result")).to_have_text("Nothing differs that a run would change.")
    await expect(page.locator("#needs-decision")).to_contain_text(
        "1 pair cannot be repaired in any direction. Somebody has to decide its level"
    )
    await page.locator("#issues-table").get_by_role("link", name="5").click()
    await expect(page.locator("#card-PLAYER")).to_contain_text("levelsync sync 5 --specialization PLAYER --level N")


async def test_all_pairs_of_a_user_are_synced_at_once(site: Site) -> None:
    await site.levels({(5, "PLAYER"): 2}, {(5, "PLAYER"): 4, (5, "COACH"): 3})
    page = await site.open("/page/users?q=5")
    await page.get_by_label("Direction").select_option("highest")
    await press(page, "Show what it would write…")
    await press(page, "Write 2 levels")
    await expect(page.get_by_role("row", name="PLAYER")).to_contain_text("2 → 4")
    await expect(page.get_by_role("row", name="COACH")).to_contain_text("- → 3")


async def test_a_run_that_goes_on_shows_how_far_it_is_and_is_cancelled(site: Site) -> None:
    await site.levels({}, {})
    run_id = uuid4()
    await site.execute(
        "INSERT INTO levelsync.reconcile_runs (id, status, step, direction, dry_run, force) "
        "VALUES (:id, 'running', 'scan', 'highest', false, false)",
        id=run_id,
    )
    await site.execute(
        "INSERT INTO levelsync.reconcile_ranges (run_id, chunk, after_user, upto_user) "
        "SELECT :id, n, n, n + 1 FROM generate_series(0, 3) AS n",
        id=run_id,
    )
    page = await site.open()
    await press(page, "Run, highest")
    await expect(page.locator("#pace")).to_contain_text("0 of 12 steps over ranges are done")
    await page.locator("#cancel").focus()
    done = json.dumps({"scanned": 1234, "healed": 5})
    await site.execute(
        "UPDATE levelsync.reconcile_ranges SET done_phase = 3, counts = CAST(:c AS jsonb) WHERE chunk = 0", c=done
    )
    await site.execute("UPDATE levelsync.reconcile_runs SET seconds_left = 40")
    await expect(page.locator("#pace")).to_contain_text("Scanning, 40 seconds left")
    await expect(page.locator("#pace")).to_contain_text("3 of 12 steps over ranges are done")
    await expect(page.locator("#count-scanned")).to_have_text("1,234")
    await expect(page.locator("#cancel")).to_be_focused()
    await press(page, "Cancel…")
    await expect(page.get_by_role("main")).to_contain_text("It has healed 5 pairs so far, which stay healed.")
    await press(page, "Cancel the run")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("cancelled")
    assert await site.rows("SELECT status FROM levelsync.reconcile_runs WHERE id = :id", id=run_id) == [("cancelled",)]


async def test_the_breaker_is_shown_before_a_run_can_be_forced(site: Site) -> None:
    await site.levels({(5, "PLAYER"): 2}, {})
    page = await dry_run(site)
    await expect(page.locator("#result")).to_contain_text("the breaker would stop it")
    await press(page, "Execute for real…")
    await press(page, "Change 1 pair")
    await expect(page.locator("#result")).to_contain_text("The breaker stopped it")
    await page.go_back()
    await page.get_by_label("Force the run").check()
    await press(page, "Change 1 pair")
    await expect(page.locator("#result")).to_contain_text("It healed 1 pair.")


async def test_the_button_pressed_twice_runs_once(site: Site) -> None:
    await site.levels({(5, "PLAYER"): 4, (6, "PLAYER"): 1}, {(5, "PLAYER"): 2, (6, "PLAYER"): 1})
    page = await dry_run(site)
    await press(page, "Execute for real…")
    await press(page, "Change 1 pair")
    await expect(page.locator("#result")).to_be_visible()
    first: Any = page.url
    await page.go_back()
    await press(page, "Change 1 pair")
    await expect(page.locator("#result")).to_be_visible()
    assert page.url == first
    assert await site.rows("SELECT count(*) FROM levelsync.reconcile_runs WHERE NOT dry_run") == [(1,)]
