"""A page without a build step imports the client from Brain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
from playwright.async_api import Browser, Error, Page, expect

from tests.clients.orders import ORDERS
from tests.end_to_end.brain import PATIENCE_SECONDS, RunningBrain
from tests.end_to_end.test_page import browser
from tests.seeds.front_end import page_server

__all__ = ["browser"]

SHOW_ORDERS = """async ([client, address]) => {
    const { createBrain } = await import(client)
    const orders = createBrain(address).collection('orders')
    orders.subscribe(() => {
        const { rows, ready } = orders.get()
        if (ready) document.title = rows.map(({ id, status }) => `${id} ${status}`).join()
    })
}"""


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """The origin of a page that Brain allows."""
    with page_server() as origin:
        yield origin


@pytest.fixture(scope="module")
def brain_settings(origin: str) -> dict[str, str]:
    return {"BRAIN_ALLOWED_ORIGINS": origin}


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context()
    yield await context.new_page()
    await context.close()


async def shows_orders(page: Page, client: str, address: str, database: str) -> None:
    """Fail unless a page shows the orders, and each change of them."""
    connection = await asyncpg.connect(database)
    await connection.execute(ORDERS)
    await page.evaluate(SHOW_ORDERS, [client, address])
    await expect(page).to_have_title("1 open,2 paid", timeout=PATIENCE_SECONDS * 1000)

    await connection.execute("UPDATE orders SET status = 'late' WHERE id = 1")
    await expect(page).to_have_title("1 late,2 paid", timeout=PATIENCE_SECONDS * 1000)
    await connection.close()


async def test_a_page_of_brain_itself_shows_rows(
    page: Page, shared_brain: RunningBrain, shared_database: str
) -> None:
    await page.goto(f"{shared_brain.http}/healthz")

    await shows_orders(page, "/client/brain.js", "", shared_database)


async def test_a_page_of_an_allowed_origin_shows_rows(
    page: Page, origin: str, shared_brain: RunningBrain, shared_database: str
) -> None:
    await page.goto(origin)
    client = f"{shared_brain.http}/client/brain.js"

    await shows_orders(page, client, shared_brain.http, shared_database)


async def test_a_page_of_another_origin_cannot_import_the_client(
    page: Page, shared_brain: RunningBrain
) -> None:
    with page_server() as foreign:
        await page.goto(foreign)
        with pytest.raises(Error, match="Failed to fetch dynamically imported module"):
            await page.evaluate(SHOW_ORDERS, [f"{shared_brain.http}/client/brain.js", ""])
