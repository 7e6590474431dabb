"""The example of docs/protocol.md for event streams, in a browser that loses its connection."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import asyncpg
from playwright.async_api import Page

from tests.end_to_end.brain import RunningBrain, has_sent_everything
from tests.end_to_end.test_page import browser, complaints, database, page, page_options
from tests.proxy import proxy_to

__all__ = ["browser", "complaints", "database", "page", "page_options"]

PROTOCOL = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
EXAMPLE = re.search(r"```javascript\n(const rows = .*?)```", PROTOCOL, re.DOTALL)
ORDERS = """
    CREATE TABLE orders (id int PRIMARY KEY, status text);
    SELECT brain.watch('orders', 'orders', '{id,status}');
    INSERT INTO orders VALUES (1, 'new'), (2, 'new');
"""
REMEMBER = """
    window.frames_of_test = [];
    window.rows_of_test = rows;
    window.events_of_test = events;
    events.addEventListener('message', ({ data }) => window.frames_of_test.push(JSON.parse(data)));
"""


async def rows_become(page: Page, expected: dict[str, str]) -> None:
    """Return once the page has these rows: the status by the key."""
    await page.wait_for_function(
        """expected => {
            const found = [...window.rows_of_test].map(([key, row]) => [key, row.status]).sort();
            return JSON.stringify(found) === expected;
        }""",
        arg=json.dumps(sorted(map(list, expected.items())), separators=(",", ":")),
    )


async def ops(page: Page) -> Counter[str]:
    """Return how often the page got each kind of frame, heartbeats apart."""
    found: list[dict[str, Any]] = await page.evaluate("window.frames_of_test")
    names = [str(frame.get("op", frame.get("type"))) for frame in found]
    return Counter(name for name in names if name != "ping")


async def test_a_browser_that_loses_its_connection_goes_on_where_it_was(
    page: Page, module_brain: RunningBrain, database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(ORDERS)
    await has_sent_everything(module_brain, database)
    assert EXAMPLE is not None
    async with proxy_to(f"http://localhost:{module_brain.port}") as (url, proxy):
        await page.goto(f"{url}/healthz")
        example = EXAMPLE[1].replace("http://localhost:5221", url)
        await page.evaluate(f"() => {{ {example} {REMEMBER} }}")
        await rows_become(page, {"1": "new", "2": "new"})
        await connection.execute("UPDATE orders SET status = 'paid' WHERE id = 1")
        await rows_become(page, {"1": "paid", "2": "new"})

        await proxy.close()
        await connection.execute("DELETE FROM orders WHERE id = 1")
        await connection.execute("INSERT INTO orders VALUES (3, 'new')")
        await rows_become(page, {"2": "new", "3": "new"})
        assert await ops(page) == {
            **{"hello": 2, "subscribed": 2, "live": 2, "snapshot": 1, "snapshot-end": 1},
            **{"update": 1, "delete": 1, "insert": 1},
        }
        await page.close()


async def test_a_page_that_was_cut_within_its_first_rows_drops_them(
    page: Page, module_brain: RunningBrain
) -> None:
    assert EXAMPLE is not None
    url = f"http://localhost:{module_brain.port}"
    await page.goto(f"{url}/healthz")
    example = EXAMPLE[1].replace("http://localhost:5221", url)
    await page.evaluate(f"() => {{ {example} {REMEMBER} events.close(); }}")

    async def receive(**frame: Any) -> None:
        await page.evaluate("data => window.events_of_test.onmessage({data})", json.dumps(frame))

    row = {"id": 1, "status": "new"}
    await receive(sub=1, op="snapshot", channel="orders", rows=[{"key": [1], "row": row}])
    await rows_become(page, {"1": "new"})
    await receive(sub=1, op="message", channel="orders", type="subscribed", data={})
    await rows_become(page, {"1": "new"})
    await receive(type="subscribed", id="sse", sub=1, channel="orders", cursor="1.1.1")
    await rows_become(page, {"1": "new"})
    await receive(type="subscribed", id="sse", sub=1, channel="orders")
    await rows_become(page, {})
    await page.close()
