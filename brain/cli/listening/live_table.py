"""Shows the rows of channels on a terminal, in place."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from rich.console import Console
from rich.live import Live

from brain.cli.listening.readable_lines import readable_line
from brain.cli.listening.table_rows import TableRows
from brain.cli.listening.table_view import TableView
from brain.client import Change, Status

BETWEEN_DRAWINGS_SECONDS = 0.1
MOST_NOTES = 3
LONGEST_NOTE = 500


class LiveTable:
    """Draws at most ten times a second, however much changes, and only if something has."""

    def __init__(self, channels: Sequence[str], *, has_snapshot: bool, console: Console) -> None:
        self._tables = {name: TableRows(name, has_snapshot=has_snapshot) for name in channels}
        self._console = console
        self._notes: deque[str] = deque(maxlen=MOST_NOTES)
        self._status = Status("connecting")
        self._is_dirty = asyncio.Event()
        self._drawing: asyncio.Task[None] | None = None

    async def show(self, change: Change[Any]) -> None:
        if change.op in ("message", "reset"):
            self._notes.append(readable_line(change)[:LONGEST_NOTE])
        self._tables[change.channel].apply(change, time.monotonic())
        self._is_dirty.set()

    def report(self, status: Status) -> None:
        self._status = status
        self._is_dirty.set()

    def when_closed(self, ended: asyncio.Future[None]) -> None:
        """End `ended` if nothing can be drawn any more; a closed terminal sends SIGHUP as well."""

        def fail(drawing: asyncio.Task[None]) -> None:
            error = None if drawing.cancelled() else drawing.exception()
            if error is not None and not ended.done():
                ended.set_exception(error)

        assert self._drawing is not None
        self._drawing.add_done_callback(fail)

    @asynccontextmanager
    async def drawn(self) -> AsyncIterator[None]:
        """Draw on a screen of its own, and leave the last table on the usual one."""
        try:
            with Live(console=self._console, screen=True, auto_refresh=False) as live:
                on_resize(self._is_dirty.set)
                self._drawing = asyncio.create_task(self._draw(live))
                try:
                    yield
                finally:
                    self._drawing.cancel()
                    await asyncio.wait((self._drawing,))
        finally:
            self._console.print(self._view(is_final=True))

    async def _draw(self, live: Live) -> None:
        while True:
            live.update(self._view(), refresh=True)
            await asyncio.sleep(BETWEEN_DRAWINGS_SECONDS)
            if not any(rows.is_fading() for rows in self._tables.values()):
                await self._is_dirty.wait()

    def _view(self, *, is_final: bool = False) -> TableView:
        self._is_dirty.clear()
        now = time.monotonic()
        for rows in self._tables.values():
            rows.fade(now)
        tables = list(self._tables.values())
        return TableView(tables, self._status, list(self._notes), now, is_final)


def on_resize(callback: Callable[[], None]) -> None:
    """Call `callback` whenever the terminal gets another size."""
    if sys.platform != "win32":
        asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, callback)
