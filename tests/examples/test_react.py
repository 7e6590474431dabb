"""The example for React: built by Vite, and shown in a real browser."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copytree, ignore_patterns
from threading import Thread

import asyncpg
import pytest
from playwright.async_api import Browser, expect

from tests.clients.commands import done
from tests.clients.conftest import node_packages, package
from tests.end_to_end.brain import RunningBrain, running_brain
from tests.end_to_end.test_page import browser

__all__ = ["browser", "node_packages", "package"]

CHECKOUT = Path(__file__).parents[2]
EXAMPLE = CHECKOUT / "examples" / "react"
ADDRESS = "http://localhost:5221"
TABLE = EXAMPLE / "src" / "OrdersTable.tsx"


class Files(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *values: object) -> None:
        """Log nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the files of a folder; yield their origin."""
    with ThreadingHTTPServer(("localhost", 0), partial(Files, directory=folder)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
async def brain(database: str, tmp_path: Path) -> AsyncIterator[RunningBrain]:
    """A Brain whose database has the table of the example."""
    connection = await asyncpg.connect(database)
    await connection.execute((EXAMPLE / "orders.sql").read_text())
    await connection.close()
    options = ("--database-url", database)
    async with running_brain(
        tmp_path, *options, BRAIN_ALLOWED_ORIGINS="http://localhost:*"
    ) as brain:
        yield brain


@pytest.fixture
async def site(brain: RunningBrain, package: Path, node_packages: Path, tmp_path: Path) -> Path:
    """What Vite makes of the example, for this Brain."""
    folder = tmp_path / "react"
    copytree(EXAMPLE, folder, ignore=ignore_patterns("node_modules", "dist"))
    table = folder / "src" / TABLE.name
    table.write_text(table.read_text("utf-8").replace(ADDRESS, brain.http), "utf-8")
    wanted, installed = folder / "node_modules", node_packages / "node_modules"
    (wanted / "@types").mkdir(parents=True)
    for name in ("react", "react-dom", "typescript", "vite", "@types/react", "@types/react-dom"):
        os.symlink(installed / name, wanted / name)
    os.symlink(package, wanted / "brain-realtime")
    await done(installed / ".bin" / "tsc", cwd=folder)
    await done(installed / ".bin" / "vite", "build", "--logLevel", "warn", cwd=folder)
    return folder / "dist"


async def test_the_table_shows_the_open_orders_as_they_change(
    browser: Browser, site: Path, connection: asyncpg.Connection
) -> None:
    context = await browser.new_context()
    page = await context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    with served(site) as origin:
        await page.goto(origin)
        await expect(page.locator("tr")).to_have_text(["11open10.5", "12open99"])
        await connection.execute("UPDATE orders SET total = 12345678901234567890.5 WHERE id = 11")
        await connection.execute("UPDATE orders SET status = 'paid' WHERE id = 12")
        await connection.execute("INSERT INTO orders VALUES (14, 'open', 3)")
        await expect(page.locator("tr")).to_have_text(["11open12345678901234567890.5", "14open3"])
    await context.close()
    assert errors == []


def test_the_readme_shows_the_table_of_the_example() -> None:
    (shown,) = re.findall(r"```tsx\n(.*?)```", (CHECKOUT / "README.md").read_text("utf-8"), re.S)
    assert shown == TABLE.read_text("utf-8")


def test_the_table_has_twelve_lines() -> None:
    assert len(TABLE.read_text("utf-8").splitlines()) <= 12


def test_no_address_of_a_registry_is_kept() -> None:
    assert '"resolved": "http' not in (EXAMPLE / "package-lock.json").read_text("utf-8")
