"""A page with the React table, in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright

from tests.end_to_end.test_page import BROWSERS, FLAGS
from tests.faults.client_battery.renders import Render, render_of, renders_of

HTML = (
    b"""<!doctype html><title>Orders</title><link rel="icon" href="data:,"><div id="root"></div>"""
)
# What the browser logs by itself when a connection fails.
NETWORK = re.compile(r"WebSocket connection to|Failed to load resource|EventSource|CORS policy")
SETTINGS = """
    window.battery = {{
        url: {url},
        options: {{ ...{options}, ...({has_token} ? {{ token: () => window.token() }} : {{}}) }},
    }}
"""


class NoBrowser(Exception):
    """None of the browsers is in PATH."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(HTML)

    def log_message(self, format: str, *values: object) -> None:
        """Log nothing."""


@contextmanager
def page_server() -> Iterator[str]:
    """Serve the page without its script; yield its origin."""
    with ThreadingHTTPServer(("localhost", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://localhost:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@asynccontextmanager
async def launched_browser() -> AsyncIterator[Browser]:
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        raise NoBrowser(f"no browser in PATH: none of {', '.join(BROWSERS)}")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        await browser.close()


class OrdersPage:
    """One tab."""

    def __init__(self, page: Page, script: str) -> None:
        self.page = page
        self.errors: list[str] = []
        """What the page threw or logged as an error, other than lost connections."""
        self._script = script
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._note)

    async def open(self, origin: str) -> None:
        await self.page.goto(origin)
        await self.page.add_script_tag(content=self._script)
        await self.mount()

    async def mount(self) -> None:
        await self.page.evaluate("mount()")

    async def unmount(self) -> None:
        await self.page.evaluate("unmount()")

    async def shown(self) -> Render:
        """Return what the page shows now."""
        return render_of(json.loads(await self.page.evaluate("shown()")))

    async def count(self, op: str) -> int:
        """Return how many frames with this `op` its client has been sent so far."""
        return int(await self.page.evaluate(f"count('{op}')"))

    async def renders(self) -> list[Render]:
        """Return all that it has shown so far."""
        return renders_of(await self.page.evaluate("renders()"))

    def _note(self, entry: ConsoleMessage) -> None:
        if entry.type == "error" and not NETWORK.search(entry.text):
            self.errors.append(entry.text)


async def new_page(
    context: BrowserContext, script: str, url: str, options: dict[str, Any], *, has_token: bool
) -> OrdersPage:
    """Return a page of a context, which opens with the client's options."""
    page = await context.new_page()
    await page.add_init_script(
        SETTINGS.format(
            url=json.dumps(url), options=json.dumps(options), has_token=json.dumps(has_token)
        )
    )
    return OrdersPage(page, script)
