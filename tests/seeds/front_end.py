"""A front end as the documents describe it, in a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from playwright.async_api import ConsoleMessage, Page, WebSocket

from tests.end_to_end.brain import PATIENCE_SECONDS, becomes
from tests.seeds.heartbeats import is_heartbeat
from tests.seeds.packages import Packages

PAGE = b"""
<!doctype html>
<title>A front end</title>
<link rel="icon" href="data:,">
<div id="root"></div>
"""

REACT = """
import { createRoot } from 'react-dom/client';
const root = createRoot(document.getElementById('root'));
window.unmount = () => root.unmount();
"""


class PageHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, format: str, *values: object) -> None:
        """Log nothing."""


@contextmanager
def page_server() -> Iterator[str]:
    """Serve the page from a server of its own, as front ends are; yield its origin."""
    with ThreadingHTTPServer(("localhost", 0), PageHandler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


class FrontEnd:
    """The page, the lines of its console, and the messages of its WebSockets."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.sockets: list[WebSocket] = []
        self.sent: list[Any] = []
        self.received: list[Any] = []
        """All that it received except heartbeats."""
        self.heartbeats: list[Any] = []
        self.errors: list[str] = []
        self._logged: list[ConsoleMessage] = []
        self._logs_read = self._messages_read = 0
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("websocket", self._follow)

    async def run(self, script: str) -> None:
        """Run a script in the page; later scripts see its declarations."""
        await self.page.add_script_tag(content=script)

    async def mount(self, packages: Packages, *code: str) -> None:
        """Run a module in TypeScript, put together from parts."""
        await self.run(await packages.bundled("\n".join(code)))

    async def next_logged(self) -> list[Any]:
        """Return the arguments of the next call of `console.log` or the like."""
        await becomes(lambda: len(self._logged) > self._logs_read)
        self._logs_read += 1
        logged = [await value.json_value() for value in self._logged[self._logs_read - 1].args]
        return await self.next_logged() if is_heartbeat(logged[-1]) else logged

    async def next_message(self) -> dict[str, Any]:
        """Return the next message that a server sends."""
        await becomes(lambda: len(self.received) > self._messages_read)
        self._messages_read += 1
        message: dict[str, Any] = self.received[self._messages_read - 1]
        return message

    async def holds(self, expression: str) -> None:
        """Return once an expression in JavaScript is true."""
        await self.page.wait_for_function(expression, timeout=PATIENCE_SECONDS * 1000)

    def _note(self, message: ConsoleMessage) -> None:
        if message.args:  # without, the browser itself logs it
            self._logged.append(message)

    def _follow(self, socket: WebSocket) -> None:
        self.sockets.append(socket)
        socket.on("framesent", lambda frame: self.sent.append(json.loads(frame)))
        socket.on("framereceived", self._receive)

    def _receive(self, frame: str | bytes) -> None:
        message = json.loads(frame)
        (self.heartbeats if is_heartbeat(message) else self.received).append(message)
