"""Brain behind nginx, on another port and below a path, configured as the documents say."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from httpx2 import AsyncClient, ConnectError
from playwright.async_api import Page, expect

from tests.end_to_end.brain import PATIENCE_SECONDS, RunningBrain, running
from tests.end_to_end.test_page import brain, browser, complaints, database, expect_live, page, row
from tests.end_to_end.test_test_page import expect_state, press

__all__ = ["brain", "browser", "complaints", "database", "page"]

OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
async def proxied(brain: RunningBrain, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of Brain below a path of nginx."""
    nginx = shutil.which("nginx")
    if nginx is None:
        pytest.skip("there is no nginx")
    found = re.search(r"```nginx\n(.*?)```", OPERATING.read_text(), re.DOTALL)
    assert found is not None
    port = free_port()
    folders = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; pid {tmp_path}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {folders} server {{ listen 127.0.0.1:{port};\n"
        f"{found[1].replace('127.0.0.1:5221', f'127.0.0.1:{brain.port}')}}} }}"
    )
    command = (nginx, "-p", str(tmp_path), "-c", str(config))
    async with running(command, tmp_path / "nginx.log", {}):
        async with AsyncClient(trust_env=False) as client, asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    await client.get(f"http://127.0.0.1:{port}/brain/healthz")
                except ConnectError:
                    await asyncio.sleep(0.05)
                else:
                    break
        yield f"http://127.0.0.1:{port}/brain"


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
