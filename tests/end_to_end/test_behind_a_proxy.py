"""Brain's pages behind proxies, with TLS and below a path, as the files in `deploy/` have them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from playwright.async_api import Page, expect

from tests.end_to_end.brain import RunningBrain
from tests.end_to_end.proxies import PROXIES, running_proxy
from tests.end_to_end.test_page import brain, browser, complaints, database, expect_live, page, row
from tests.end_to_end.test_test_page import expect_state, press

__all__ = ["brain", "browser", "complaints", "database", "page"]


@pytest.fixture
def page_options() -> dict[str, bool]:
    # The certificates are made for the tests.
    return {"ignore_https_errors": True}


@pytest.fixture(params=PROXIES)
async def proxied(
    request: pytest.FixtureRequest, brain: RunningBrain, tmp_path: Path
) -> AsyncIterator[str]:
    """The URL of Brain below a path of a proxy."""
    async with running_proxy(request.param, tmp_path, brain.port) as proxy:
        yield proxy.https


async def test_the_live_page_is_live(
    page: Page, proxied: str, connection: asyncpg.Connection, complaints: list[str]
) -> None:
    await page.goto(f"{proxied}/")
    await expect_live(page)
    await connection.execute("UPDATE tasks SET status = 'completed' WHERE id = 'task-123'")
    await expect(row(page, "Build the live dashboard")).to_contain_text("Completed")
    for link in await page.get_by_role("link").all():
        response = await page.request.get(f"{proxied}/{await link.get_attribute('href')}")
        assert response.ok
    assert complaints == []


async def test_the_test_page_connects(page: Page, proxied: str, complaints: list[str]) -> None:
    await page.goto(f"{proxied}/static/websocket_test.html")
    await expect_state(page, "Disconnected")
    await press(page, "Connect")
    await expect_state(page, "Connected")
    assert complaints == []
