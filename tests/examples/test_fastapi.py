"""The example in FastAPI, under two servers, with a browser and a program as clients."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from httpx2 import AsyncClient
from playwright.async_api import Browser, expect
from websockets.asyncio.client import connect

from tests.end_to_end.brain import PATIENCE_SECONDS, logged, message, running
from tests.end_to_end.test_page import browser

__all__ = ["browser"]

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "fastapi"
COMMANDS = {
    "uvicorn": ("uvicorn", "app:app", "--host", "localhost", "--port", "0"),
    "hypercorn": ("hypercorn", "app:app", "--bind", "localhost:0"),
}
RUNNING = re.compile(r"[Rr]unning on http://\S+?:(\d+)")
ORDERS = """
    CREATE TABLE orders (id int PRIMARY KEY, status text);
    SELECT brain.watch('orders', 'orders', '{id,status}');
    INSERT INTO orders VALUES (1, 'new');
"""


@asynccontextmanager
async def example(folder: Path, database: str, server: str) -> AsyncIterator[str]:
    """Run the example; yield where it is."""
    command = (sys.executable, "-m", *COMMANDS[server])
    environment = {"BRAIN_DATABASE_URL": database, "PYTHONPATH": str(ROOT)}
    output = folder / "example.log"
    async with running(command, output, environment, cwd=EXAMPLE) as process:
        port = (await logged(output, RUNNING, process))[1]
        yield f"localhost:{port}"


@pytest.mark.parametrize("server", COMMANDS)
async def test_a_program_with_a_session_gets_rows_and_changes(
    core_database: str, tmp_path: Path, server: str
) -> None:
    connection = await asyncpg.connect(core_database)
    await connection.execute(ORDERS)
    async with (
        example(tmp_path, core_database, server) as address,
        AsyncClient(base_url=f"http://{address}", trust_env=False) as client,
    ):
        path = "/live/api/brain/snapshot/orders"
        assert (await client.get(path)).status_code == 401
        assert (await client.post("/login/ann")).status_code == 204
        assert (await client.get(path)).json()["rows"] == [{"id": 1, "status": "new"}]

        session = {"cookie": f"session={client.cookies['session']}"}
        async with connect(
            f"ws://{address}/live/ws/v1", additional_headers=session, proxy=None
        ) as websocket:
            assert (await message(websocket))["user"] == "ann"
            await websocket.send(json.dumps({"type": "subscribe", "id": "a", "channel": "orders"}))
            assert (await message(websocket))["type"] == "subscribed"
            await connection.execute("UPDATE orders SET status = 'paid'")
            assert (await message(websocket))["row"] == {"id": 1, "status": "paid"}
    await connection.close()


@pytest.mark.parametrize("server", COMMANDS)
async def test_the_server_ends_when_brain_cannot_go_on(
    core_database: str, tmp_path: Path, server: str
) -> None:
    connection = await asyncpg.connect(core_database)
    await connection.execute(ORDERS)
    command = (sys.executable, "-m", *COMMANDS[server])
    environment = {"BRAIN_DATABASE_URL": core_database, "PYTHONPATH": str(ROOT)}
    output = tmp_path / "example.log"
    async with running(command, output, environment, cwd=EXAMPLE) as process:
        await logged(output, RUNNING, process)
        await connection.execute("DROP SCHEMA brain CASCADE")
        async with asyncio.timeout(PATIENCE_SECONDS):
            await process.wait()
    await connection.close()


async def test_the_page_shows_the_table_as_it_is(
    browser: Browser, core_database: str, tmp_path: Path
) -> None:
    connection = await asyncpg.connect(core_database)
    await connection.execute(ORDERS)
    complaints: list[str] = []
    async with example(tmp_path, core_database, "uvicorn") as address:
        context = await browser.new_context()
        page = await context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(f"http://{address}/")
        await page.fill("input", "ann")
        await page.click("button")
        await expect(page.locator("#status")).to_have_text("live")
        await expect(page.locator("tbody td")).to_have_text(["1", "new"])
        await connection.execute("UPDATE orders SET status = 'paid'")
        await connection.execute("INSERT INTO orders VALUES (2, '<b>')")
        await expect(page.locator("tbody td")).to_have_text(["1", "paid", "2", "<b>"])
        await context.close()
    await connection.close()
    assert complaints == []
