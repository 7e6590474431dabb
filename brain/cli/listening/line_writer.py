"""Writes lines to a pipe, a file or a terminal, without holding up the connection."""

from __future__ import annotations

import asyncio
import os
import select
import stat
import sys
import threading
from queue import SimpleQueue

# So much a pipe takes at once if it takes anything (POSIX); the least there is where it is unknown.
WRITTEN_AT_ONCE = getattr(select, "PIPE_BUF", 512)


class LineWriter:
    """
    Writes each line as soon as it is given.

    Whatever reads may be slow: then a thread waits for it, and the event loop goes on. The thread
    is a daemon, so that the program can end meanwhile.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: SimpleQueue[tuple[bytes, asyncio.Future[None]]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop = asyncio.get_running_loop()

    async def write(self, line: str) -> None:
        """Return once the line is written; raises BrokenPipeError if nothing reads any more."""
        data = f"{line}\n".encode()
        if len(data) <= WRITTEN_AT_ONCE and self._has_room():
            write_all(self._descriptor, data)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="lines", daemon=True)
            self._thread.start()
        written: asyncio.Future[None] = self._loop.create_future()
        self._lines.put((data, written))
        await written

    def when_closed(self, ended: asyncio.Future[None]) -> None:
        """End `ended` with BrokenPipeError when the reader of a pipe goes away."""
        is_pipe = stat.S_ISFIFO(os.fstat(self._descriptor).st_mode)
        if not is_pipe or sys.platform == "win32":
            return

        def notice() -> None:
            self._loop.remove_reader(self._descriptor)
            if not ended.done():
                ended.set_exception(BrokenPipeError())

        # Nothing can be read from this end: what is reported is an error.
        self._loop.add_reader(self._descriptor, notice)

    def _has_room(self) -> bool:
        try:
            return bool(select.select([], [self._descriptor], [], 0)[1])
        except OSError:  # on Windows, for all but sockets
            return False

    def _work(self) -> None:
        while True:
            data, written = self._lines.get()
            try:
                write_all(self._descriptor, data)
            except OSError as error:
                self._loop.call_soon_threadsafe(fail, written, error)
            else:
                self._loop.call_soon_threadsafe(succeed, written)


def write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def succeed(written: asyncio.Future[None]) -> None:
    if not written.done():
        written.set_result(None)


def fail(written: asyncio.Future[None], error: OSError) -> None:
    if not written.done():
        written.set_exception(error)
