"""The live page, in a real browser."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from playwright.async_api import Browser, Locator, Page, Route, async_playwright, expect

from brain.systems.cecelia.samples import insert_samples
from tests.end_to_end.brain import (
    PATIENCE_SECONDS,
    RunningBrain,
    has_sent_everything,
    running_brain,
)

# The first draws no window, and costs a third of the others.
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# What the browser logs when the server is killed: while it connects, and while it fetches.
CUT_OFF = re.compile(
    r"WebSocket connection to '\S+' failed: "
    r"|Failed to load resource: net::ERR_"
    r"(CONNECTION_(REFUSED|RESET|CLOSED|ABORTED)|EMPTY_RESPONSE|SOCKET_NOT_CONNECTED"
    r"|INCOMPLETE_CHUNKED_ENCODING|CONTENT_LENGTH_MISMATCH)$"
)

expect.set_options(timeout=PATIENCE_SECONDS * 1000)


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """A browser for all tests: playwright's own tasks exist before a test begins."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip(f"no browser in PATH: none of {', '.join(BROWSERS)}")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        await browser.close()


@pytest.fixture
def complaints() -> list[str]:
    """The errors and warnings of the page, including violations of its security policy."""
    return []


@pytest.fixture
def page_options() -> dict[str, bool]:
    """What the browser needs to open the page; a module that needs more defines it anew."""
    return {}


@pytest.fixture
async def page(
    browser: Browser, complaints: list[str], page_options: dict[str, Any]
) -> AsyncIterator[Page]:
    context = await browser.new_context(locale="en-GB", **page_options)
    page = await context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda entry: complaints.append(entry.text) if entry.type in ("error", "warning") else None,
    )
    yield page
    await context.close()


@pytest.fixture
def database(shared_database: str) -> str:
    return shared_database


@pytest.fixture
async def brain(
    module_brain: RunningBrain, database: str, connection: asyncpg.Connection
) -> RunningBrain:
    await insert_samples(connection)
    await has_sent_everything(module_brain, database)
    return module_brain


@pytest.fixture
async def live_page(page: Page, brain: RunningBrain, complaints: list[str]) -> AsyncIterator[Page]:
    """The page, connected and with its tasks; the browser may log no error to the end."""
    await page.goto(brain.http)
    await expect_live(page)
    await expect(page.get_by_role("listitem")).not_to_have_count(0)
    yield page
    assert complaints == []


async def expect_live(page: Page) -> None:
    await expect(page.get_by_role("status").first).to_have_text("Live")


def row(page: Page, title: str) -> Locator:
    heading = page.get_by_role("heading", name=title, exact=True)
    return page.get_by_role("listitem").filter(has=heading)


async def test_the_page_lists_the_tasks(live_page: Page) -> None:
    await expect(live_page.get_by_role("listitem")).to_have_count(4)
    reviewed = row(live_page, "Review the pull request")
    await expect(reviewed).to_contain_text("In progress")
    await expect(reviewed).to_contain_text("task-124 · review · Reading the tests")
    await expect(reviewed).to_contain_text("3 of 8")
    await expect(row(live_page, "Write the release notes")).to_contain_text("Completed")


async def test_a_page_that_is_opened_with_a_token_is_live_too(
    page: Page, brain: RunningBrain, connection: asyncpg.Connection, complaints: list[str]
) -> None:
    await page.goto(f"{brain.http}/?token=ann")
    await expect_live(page)
    await connection.execute("UPDATE tasks SET status = 'completed' WHERE id = 'task-123'")
    await expect(row(page, "Build the live dashboard")).to_contain_text("Completed")
    assert complaints == []


async def test_an_update_moves_the_progress_bar(
    live_page: Page, connection: asyncpg.Connection
) -> None:
    await live_page.evaluate("document.body.dataset.loaded = 'once'")
    await connection.execute(
        "UPDATE tasks SET status = 'running', progress = 5.5 WHERE id = 'task-123'"
    )
    changed = row(live_page, "Build the live dashboard")
    await expect(changed.get_by_role("progressbar")).to_have_js_property("value", 0.5)
    await expect(changed).to_contain_text("5.5 of 11")
    await expect(changed).to_contain_text("In progress")
    await expect(live_page.locator("body")).to_have_attribute("data-loaded", "once")


async def test_changes_that_no_message_carries_are_shown_too(
    live_page: Page, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        """
        UPDATE tasks SET payload = payload || '{"current_step": 4, "step_name": "Writing code"}'
         WHERE id = 'task-124'
        """
    )
    await expect(row(live_page, "Review the pull request")).to_contain_text("Writing code")


async def test_a_changed_row_keeps_its_place(
    live_page: Page, connection: asyncpg.Connection
) -> None:
    titles = live_page.get_by_role("listitem").get_by_role("heading")
    before = await titles.all_inner_texts()
    await connection.execute(
        """
        UPDATE tasks SET status = 'running', payload = payload || '{"step_name": "Once more"}'
         WHERE id = 'task-126'
        """
    )
    # Only the list has the step name, and the list has this task first now.
    await expect(row(live_page, "Deploy to staging")).to_contain_text("Once more")
    assert await titles.all_inner_texts() == before


async def test_a_new_task_comes_first_with_its_title(
    live_page: Page, connection: asyncpg.Connection
) -> None:
    await connection.execute("INSERT INTO tasks (title) VALUES ('Water the plants')")
    first = live_page.get_by_role("listitem").first
    await expect(first.get_by_role("heading")).to_have_text("Water the plants")
    await expect(first).to_contain_text("Queued")


async def test_a_task_without_a_number_of_steps_shows_how_many_are_done(
    live_page: Page, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        "INSERT INTO tasks (title, status, progress) VALUES ('Dig', 'running', 3)"
    )
    await expect(row(live_page, "Dig")).to_contain_text("3 steps")
    bar = row(live_page, "Dig").get_by_role("progressbar")
    await expect(bar).to_have_js_property("position", -1)  # indeterminate
    await connection.execute("UPDATE tasks SET status = 'completed' WHERE title = 'Dig'")
    await expect(bar).to_have_js_property("position", 1)


async def test_a_failed_task_shows_its_error(
    live_page: Page, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        "UPDATE tasks SET status = 'failed', error = 'Out of paper' WHERE id = 'task-124'"
    )
    failed = row(live_page, "Review the pull request")
    await expect(failed).to_contain_text("Failed")
    await expect(failed).to_contain_text("Out of paper")


async def test_a_deleted_task_disappears(live_page: Page, connection: asyncpg.Connection) -> None:
    await connection.execute("DELETE FROM tasks WHERE id = 'task-125'")
    await expect(row(live_page, "Write the release notes")).to_have_count(0)
    await expect(live_page.get_by_role("listitem")).to_have_count(3)


async def test_without_tasks_the_page_shows_how_to_insert_one(
    live_page: Page, connection: asyncpg.Connection
) -> None:
    await connection.execute("TRUNCATE tasks")
    await expect(live_page.get_by_role("heading", name="No tasks yet")).to_be_visible()
    await connection.execute(await live_page.locator("pre").inner_text())
    await expect(row(live_page, "Say hello")).to_contain_text("0 of 3")
    await expect(live_page.get_by_role("heading", name="No tasks yet")).to_be_hidden()


async def test_markup_is_shown_as_text(live_page: Page, connection: asyncpg.Connection) -> None:
    markup = "<img src=x onerror=alert(1)> & <b>bold</b>"
    await connection.execute(
        "INSERT INTO tasks (id, title, agent, status, error) VALUES ($1, $1, $1, 'failed', $1)",
        markup,
    )
    await expect(row(live_page, markup)).to_have_count(1)
    await expect(row(live_page, markup).locator(".error")).to_have_text(markup)
    await expect(live_page.locator("img, b")).to_have_count(0)


async def test_many_new_tasks_are_shown_up_to_a_limit(
    live_page: Page, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        "INSERT INTO tasks (title) SELECT 'Task ' || n FROM generate_series(1, 250) n"
    )
    await expect(live_page.get_by_role("listitem")).to_have_count(200)
    titles = live_page.get_by_role("heading", name=re.compile(r"^Task \d"))
    # If reading the tasks takes long, the page waits twenty times as long before the next read.
    await expect(titles).to_have_count(200, timeout=2 * PATIENCE_SECONDS * 1000)


async def test_the_page_shows_its_websocket_address(live_page: Page, brain: RunningBrain) -> None:
    command = f"wscat -c ws://localhost:{brain.port}/ws"
    await expect(live_page.get_by_text(command, exact=True)).to_be_visible()


async def test_messages_that_arrive_while_the_tasks_are_listed_are_not_lost(
    page: Page, brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    was_sent = asyncio.Event()

    def receive(frame: str | bytes) -> None:
        if '"progress":6' in str(frame):
            was_sent.set()

    async def hold_back(route: Route) -> None:
        outdated = await route.fetch()
        await connection.execute("UPDATE tasks SET progress = 6 WHERE id = 'task-124'")
        await was_sent.wait()
        await route.fulfill(response=outdated)

    page.on("websocket", lambda websocket: websocket.on("framereceived", receive))
    await page.route("**/api/brain/tasks", hold_back, times=1)
    await page.goto(brain.http)
    await expect(row(page, "Review the pull request")).to_contain_text("6 of 8")


async def test_the_tasks_are_listed_once_the_database_is_back(
    page: Page, brain: RunningBrain
) -> None:
    await page.route("**/api/brain/tasks", lambda route: route.fulfill(status=503), times=2)
    await page.goto(brain.http)
    await expect(page.get_by_text("The tasks cannot be read; trying again.")).to_be_visible()
    await expect(page.get_by_role("listitem")).to_have_count(4)
    await expect(page.get_by_text("The tasks cannot be read; trying again.")).to_be_hidden()


async def test_after_a_crash_of_the_server_the_page_catches_up(
    page: Page,
    complaints: list[str],
    database: str,
    connection: asyncpg.Connection,
    tmp_path: Path,
) -> None:
    serving = ("--database-url", database, "--samples")
    async with running_brain(tmp_path, *serving) as crashing:
        await page.goto(crashing.http)
        await expect_live(page)
        crashing.process.kill()
        await crashing.stopped()
    await expect(page.get_by_role("status").first).to_have_text("Reconnecting")
    await connection.execute("UPDATE tasks SET progress = 6 WHERE id = 'task-124'")
    await connection.execute("DELETE FROM tasks WHERE id = 'task-125'")
    async with running_brain(tmp_path, *serving, "--port", str(crashing.port)):
        await expect_live(page)
        await expect(row(page, "Review the pull request")).to_contain_text("6 of 8")
        await expect(row(page, "Write the release notes")).to_have_count(0)
        await connection.execute("UPDATE tasks SET progress = 7 WHERE id = 'task-124'")
        await expect(row(page, "Review the pull request")).to_contain_text("7 of 8")
    assert [complaint for complaint in complaints if not CUT_OFF.match(complaint)] == []
