"""
WebSocket clients that count and time what they receive, in a separate process.

This module connects them and hands their sockets to `load.c`, which reads them: a client of Python
would take longer for a message than the server. How messages are counted: all frames have the same
length, so the number of bytes gives the number of frames. Messages of brain.v1 and server-sent
events have cursors, which differ in length: of these the mark in each message is counted. Or the
time in each message is read, and its age noted. It is an error if a client receives more than is
expected, or if its connection is closed.
"""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
from array import array
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice, repeat
from pathlib import Path
from typing import Any, NamedTuple

from bench.compiler import compile_program
from bench.descriptors import raise_descriptor_limit
from bench.dialects import Dialect
from bench.note import MARK
from bench.usage import end

# `load.c` itself gives up when no client receives anything for a minute.
PATIENCE_SECONDS = 120.0

# The longest line of `load.c`: what clients have received that are examined.
LINE_BYTES = 2**28

ACKNOWLEDGING = ("-q",)
"""Acknowledge at once what was read, for a server that waits for it (Nagle's algorithm)."""


def by_length(frame_bytes: int) -> tuple[str, ...]:
    """Count messages by their length, which is the same for all."""
    return ("-b", str(frame_bytes))


def by_mark() -> tuple[str, ...]:
    """Count messages by the mark that each has once."""
    return ("-m", MARK)


def by_age(key: str = '"progress"', start: str | None = None) -> tuple[str, ...]:
    """
    Note how old each message is: the value of `key` is its time, in seconds since 1970.

    `start`: what precedes the key in each message, for messages in which it occurs several times.
    """
    return ("-a", key, "-s", start or key)


class Receipt(NamedTuple):
    """When clients had all that was expected, by `time.monotonic()`."""

    first: float
    """The first client."""
    median: float
    last: float


class Load:
    """Controls the process of the clients."""

    def __init__(self, process: asyncio.subprocess.Process, dialect: Dialect) -> None:
        self._process = process
        self._dialect = dialect

    @property
    def process_id(self) -> int:
        return self._process.pid

    def expect(self, frames: int, ahead: int = 0) -> None:
        """
        Expect so many frames more at every client; call this before publishing.

        Up to `ahead` frames of those that are expected next may arrive as well.
        """
        self._command("expect", frames, ahead)

    def examine(self, frames: int) -> None:
        """Expect so many frames more, and keep them; call this before publishing."""
        self._command("examine", frames)

    async def received(self) -> Receipt:
        """Wait until every client has what was expected."""
        return Receipt(*(await self._reply()))

    async def examined(self) -> list[str]:
        """Wait for what is examined, and return the messages, which all clients received alike."""
        _, _, _, *kept = await self._reply()
        received = {tuple(self._messages(bytes.fromhex(digits))) for _, digits in kept}
        (messages,) = received
        return list(messages)

    async def ages(self) -> array[float]:
        """Return the ages in ms of the messages since the last call, of all clients together."""
        self._command("ages")
        (count,) = await self._reply()
        ages = array("f")
        assert self._process.stdout
        ages.frombytes(await self._process.stdout.readexactly(count * ages.itemsize))
        return ages

    async def ready(self) -> None:
        """Wait until the process reads what the clients receive."""
        await self._reply()

    def _command(self, verb: str, frames: int = 0, ahead: int = 0) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{verb} {frames} {ahead}\n".encode())

    async def _reply(self) -> list[Any]:
        assert self._process.stdout
        async with asyncio.timeout(PATIENCE_SECONDS):
            line = await self._process.stdout.readline()
        if not line:
            raise ConnectionError("the client process has ended; its error is printed above")
        return list(json.loads(line))

    def _messages(self, received: bytes) -> list[str]:
        """Return the messages, without heartbeats and the like."""
        return [text for text in self._dialect.texts(received) if MARK in text]


def connected_sockets(
    port: int, dialects: Iterable[Dialect], *, host: str = "127.0.0.1", together: int = 100
) -> Iterator[socket.socket]:
    """
    Yield blocking sockets, one for each dialect, that have received all before their messages.

    `together` clients connect at a time: fewer than the backlog of a server.
    """
    remaining = iter(dialects)
    while some := list(islice(remaining, together)):
        batch = [socket.create_connection((host, port), timeout=60) for _ in some]
        for one, dialect in zip(batch, some, strict=True):
            one.sendall(dialect.request)
        begun = [dialect.begin(one) for one, dialect in zip(batch, some, strict=True)]
        for one, dialect, received in zip(batch, some, begun, strict=True):
            dialect.finish(one, received)
            yield one


@asynccontextmanager
async def running_load(
    port: int, dialects: Sequence[Dialect], *options: str, host: str = "127.0.0.1"
) -> AsyncIterator[Load]:
    """
    Connect a client for each dialect, and have another process read until the context ends.

    `options`: how messages are counted, and `ACKNOWLEDGING`.
    """
    raise_descriptor_limit()
    with tempfile.TemporaryDirectory() as folder:
        program = await compile_program("load", Path(folder))
        sockets = await asyncio.to_thread(
            lambda: list(connected_sockets(port, dialects, host=host))
        )
        process = await started(program, options, sockets)
    try:
        load = Load(process, dialects[0])
        await load.ready()
        yield load
    finally:
        await end(process)


async def started(
    program: Path, options: Sequence[str], sockets: Sequence[socket.socket]
) -> asyncio.subprocess.Process:
    """Start the program with the sockets, which then are its own."""
    descriptors = [one.fileno() for one in sockets]
    process = await asyncio.create_subprocess_exec(
        *(str(program), *options, *map(str, descriptors)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES,
        pass_fds=descriptors,
    )
    for one in sockets:
        one.close()
    return process


def alike(dialect: Dialect, clients: int) -> list[Dialect]:
    """Return the same dialect for each of so many clients."""
    return list(repeat(dialect, clients))
