"""Tabs of a real browser share one connection to Brain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.clients.orders import ORDERS
from tests.end_to_end.brain import PATIENCE_SECONDS, RunningBrain
from tests.end_to_end.test_page import browser

__all__ = ["browser"]

FOLLOW_ORDERS = """async token => {
    const { createBrain } = await import('/client/brain.js')
    window.brain = createBrain('', { tabs: true, token })
    const orders = brain.collection('orders')
    window.heard = []
    orders.subscribe(() => {
        document.title = orders.get().rows.map(({ id, status }) => `${id} ${status}`).sort().join()
    })
    brain.subscribe('orders', change => change.key && heard.push(change.key[0]))
}"""


@dataclass
class Tab:
    page: Page
    sockets: int = 0

    def count(self, _: object) -> None:
        self.sockets += 1

    async def shows(self, orders: str) -> None:
        await expect(self.page).to_have_title(orders, timeout=PATIENCE_SECONDS * 1000)

    async def heard(self, *keys: int) -> None:
        """Return once the tab has heard of changes of these rows."""
        condition = f"JSON.stringify(heard) == '{list(keys)}'.replaceAll(' ', '')"
        await self.page.wait_for_function(condition, timeout=PATIENCE_SECONDS * 1000)


@pytest.fixture
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    context = await browser.new_context()
    yield context
    await context.close()


@pytest.fixture
async def orders(
    shared_brain: RunningBrain, shared_database: str
) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(shared_database)
    await connection.execute(ORDERS)
    yield connection
    await connection.close()


async def opened(context: BrowserContext, brain: RunningBrain, token: str | None = None) -> Tab:
    """Open a tab that shows the orders."""
    tab = Tab(await context.new_page())
    tab.page.on("websocket", tab.count)
    await tab.page.goto(f"{brain.http}/healthz")
    await tab.page.evaluate(FOLLOW_ORDERS, token)
    return tab


async def test_tabs_share_a_connection_and_lose_nothing_when_the_leading_one_is_closed(
    context: BrowserContext, shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    first = await opened(context, shared_brain)
    await first.shows("1 open,2 paid")
    second = await opened(context, shared_brain)
    await second.shows("1 open,2 paid")
    await orders.execute("UPDATE orders SET status = 'late' WHERE id = 1")
    for tab in (first, second):
        await tab.shows("1 late,2 paid")
        await tab.heard(1)
    assert (first.sockets, second.sockets) == (1, 0)

    await first.page.close()
    await orders.execute("INSERT INTO orders VALUES (3, 'new')")
    await second.shows("1 late,2 paid,3 new")
    await second.heard(1, 3)
    assert second.sockets == 1


async def test_tabs_of_different_users_have_connections_of_their_own(
    context: BrowserContext, shared_brain: RunningBrain, orders: asyncpg.Connection
) -> None:
    ann = await opened(context, shared_brain, "ann")
    bob = await opened(context, shared_brain, "bob")
    for tab in (ann, bob):
        await tab.shows("1 open,2 paid")
        assert tab.sockets == 1
