"""Take the pictures docs/pictures/*.png of the page with Chromium, from a `levelsync up` with drift and dead letters.

Run it in the folder of the checkout after a change of the page: .venv/bin/python scripts/pictures.py
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
from playwright.async_api import Browser, Page, async_playwright

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"
LEVELSYNC = str(Path(sys.executable).with_name("levelsync"))
DESKTOP, PHONE = {"width": 1120, "height": 800}, {"width": 360, "height": 740}
TIMEOUT = 60.0
"""Seconds to wait for `levelsync up`."""
DRIFT = (
    "UPDATE user_licenses SET current_level = 1 WHERE user_id % 17 = 3 AND current_level > 1",
    "DELETE FROM user_licenses WHERE user_id IN (24, 48, 72)",
    "DELETE FROM specialization_progress WHERE student_id IN (31, 62)",
    "UPDATE specialization_progress SET current_level = 9 WHERE student_id = 90 AND specialization_id = 'PLAYER'",
)
SAMPLES = """
    INSERT INTO levelsync.minute_samples (minute, events, delays, lag, drift, dead_letters)
    SELECT date_trunc('minute', now()) - n * interval '1 minute',
           jsonb_build_object('progress.leveled-up.v1 applied', (1500 + 1200 * sin(n / 200.0))::int,
                              'license.advanced.v1 applied', (300 + 200 * sin(n / 150.0))::int,
                              'progress.leveled-up.v1 equal', 100 + n % 40),
           jsonb_build_object('progress.leveled-up.v1 0.05', 900, 'progress.leveled-up.v1 0.25', 60 + n % 50,
                              'progress.leveled-up.v1 1.0', 12 + n % 7),
           (40 + 35 * sin(n / 60.0))::int, CASE WHEN n < 300 THEN 9 ELSE 0 END, 1 + (1440 - n) / 400
      FROM generate_series(1, 1440) n
        ON CONFLICT (minute) DO UPDATE SET events = excluded.events, delays = excluded.delays, lag = excluded.lag
"""
"""Samples of the day before `levelsync up` started."""
EVENTS = (
    ("42", "PLAYER", "6"),
    ("43", "COACH", "7"),
    ("901", "PLAYER", "3"),
    ("902", "COACH", "2"),
    ("903", "PLAYER", "5"),
    ("44", "GOALKEEPER", "2"),
    ("45", "INTERNSHIP", "5"),
)
ADD_USER = "INSERT INTO users (id, name, email) VALUES (901, 'Ada', 'ada@example.org')"


def main() -> None:
    """Start levelsync, create drift and dead letters, take the pictures, and stop."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="levelsync-") as name, running_levelsync(Path(name)) as (url, token):
        for user, specialization, level in EVENTS:
            run_command(
                "publish",
                "leveled-up",
                "--user",
                user,
                "--specialization",
                specialization,
                "--to-level",
                level,
                at=name,
            )
        asyncio.run(create_drift(Path(name)))
        asyncio.run(take_pictures(url, token))


@contextmanager
def running_levelsync(folder: Path) -> Iterator[tuple[str, str]]:
    """Run `levelsync up` in `folder`, and yield the URL of the service and an admin token."""
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen([LEVELSYNC, "up", "--port", "0"], cwd=folder, stdout=output, stderr=output)  # noqa: S603 - our own command
    try:
        yield wait_for(log, r"service +(http\S+)"), wait_for(log, r"(eyJ\S+)")
    finally:
        process.terminate()
        process.wait(TIMEOUT)


def wait_for(log: Path, pattern: str) -> str:
    """Wait until the log contains the pattern, and return its group."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        if found := re.search(pattern, log.read_text()):
            return found[1]
        time.sleep(0.2)
    raise SystemExit(f"levelsync up did not say {pattern}:\n{log.read_text()}")


def run_command(*arguments: str, at: str) -> None:
    """Run a command of levelsync while the service runs."""
    subprocess.run([LEVELSYNC, *arguments], cwd=at, check=True, capture_output=True)  # noqa: S603 - our own command


async def create_drift(folder: Path) -> None:
    """Create drift, and add the user of one dead letter."""
    settings = (folder / ".levelsync" / "up.env").read_text()
    found = re.search(r"DATABASE_URL=(\S+)", settings)
    connection = await asyncpg.connect(found[1] if found else None)
    for statement in (*DRIFT, ADD_USER, SAMPLES):
        await connection.execute(statement)
    await connection.close()


async def take_pictures(url: str, token: str) -> None:
    """Take every picture."""
    async with async_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = await signed_in(browser, url, token, color_scheme="light", viewport=DESKTOP)
        await page.get_by_role("link", name="Runs", exact=True).click()
        await page.get_by_role("button", name="Start the dry run").click()
        await page.locator("#result").wait_for(timeout=TIMEOUT * 1000)
        await save(page, "run-light")
        await page.goto(f"{url}/")
        await save(page, "overview-light")
        await page.goto(f"{url}/page/users/20")
        await save(page, "user-light")
        dark = await signed_in(browser, url, token, color_scheme="dark", viewport=DESKTOP)
        await save(dark, "overview-dark")
        await dark.goto(f"{url}/page/dead-letters")
        await save(dark, "dead-letters-dark")
        await dark.get_by_role("link", name="unknown user", exact=True).click()
        await dark.get_by_role("row", name="would apply").get_by_role("rowheader").get_by_role("link").click()
        await save(dark, "dead-letter-dark")
        phone = await signed_in(browser, url, token, color_scheme="light", viewport=PHONE)
        await save(phone, "overview-phone")
        await browser.close()


async def signed_in(browser: Browser, url: str, token: str, **options: Any) -> Page:
    """Open a window, sign in, and return it with the overview."""
    page = await browser.new_page(**options)
    await page.goto(url)
    await page.get_by_label("Token").fill(token)
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("navigation").wait_for()
    return page


async def save(page: Page, name: str) -> None:
    """Save what the window shows."""
    await page.wait_for_load_state("networkidle")
    path = PICTURES / f"{name}.png"
    await page.screenshot(path=path)
    print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
