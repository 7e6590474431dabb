"""The example without a build step, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import asyncpg
import pytest
from playwright.async_api import Browser, Page, expect

from tests.end_to_end.brain import PATIENCE_SECONDS, running_brain
from tests.end_to_end.test_page import CUT_OFF, browser
from tests.proxy import proxy_to

__all__ = ["browser"]

EXAMPLE = Path(__file__).parents[2] / "examples" / "plain-html"
PRINTED = "http://localhost:5221"


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *values: object) -> None:
        """Log nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder as the README says; yield the origin."""
    handler = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("localhost", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


async def rows(page: Page, expected: list[list[str]]) -> None:
    """Wait until the table has these rows."""
    await page.wait_for_function(
        """expected => {
            const found = [...document.querySelectorAll('tbody tr')]
                .map(row => [...row.cells].map(cell => cell.textContent));
            return JSON.stringify(found) === JSON.stringify(expected);
        }""",
        arg=expected,
        timeout=PATIENCE_SECONDS * 1000,
    )


async def test_the_page_shows_the_table_as_it_is_also_after_brain_was_away(
    browser: Browser, database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    await connection.execute(
        "INSERT INTO tasks (id, agent, status) VALUES ('task-1', 'dev', 'queued')"
    )
    pages = tmp_path / "page"
    pages.mkdir()
    complaints: list[str] = []
    with served(pages) as origin:
        async with (
            running_brain(
                tmp_path, "--database-url", database, BRAIN_ALLOWED_ORIGINS=origin
            ) as brain,
            proxy_to(brain.http) as (url, proxy),
        ):
            text = (EXAMPLE / "index.html").read_text()
            assert text.count(PRINTED) == 2
            (pages / "index.html").write_text(text.replace(PRINTED, url))
            context = await browser.new_context()
            page = await context.new_page()
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on(
                "console",
                lambda entry: complaints.append(entry.text) if entry.type == "error" else None,
            )
            await page.goto(origin)
            await rows(page, [["task-1", "dev", "queued", "0"]])
            await expect(page.locator("#status")).to_have_text("live")

            await connection.execute("UPDATE tasks SET status = 'running', progress = 1")
            await connection.execute(
                "INSERT INTO tasks (id, agent, status) VALUES ('task-2', '<b>', 'queued')"
            )
            await rows(page, [["task-1", "dev", "running", "1"], ["task-2", "<b>", "queued", "0"]])

            proxy.lead_to("http://localhost:1")
            await proxy.close()
            await expect(page.locator("#status")).to_contain_text("offline")
            await connection.execute("DELETE FROM tasks WHERE id = 'task-1'")
            await rows(page, [["task-1", "dev", "running", "1"], ["task-2", "<b>", "queued", "0"]])
            proxy.lead_to(brain.http)
            await rows(page, [["task-2", "<b>", "queued", "0"]])
            await context.close()
    assert [one for one in complaints if not CUT_OFF.match(one)] == []


@pytest.mark.parametrize("name", ["README.md", "index.html"])
def test_the_example_is_whole(name: str) -> None:
    assert PRINTED in (EXAMPLE / name).read_text()
