"""
WebSocket clients that count the bytes that they receive, in a separate process.

    python -m bench.load PORT PATH CLIENTS FRAME_BYTES [--greeted] [--offers-compression]
                         [--acknowledges] [--subscribes CHANNEL] [--events]

The process does as little work as possible: one epoll, one `recv` into one buffer, one addition.
When it falls behind, one `recv` takes several frames, so it catches up. It does not decode frames:
all have the same length, so the number of bytes gives the number of frames. It is an error if a
client receives more than was published, or if its connection is closed. Messages of brain.v1, with
`--subscribes`, and server-sent events, with `--events`, have cursors, which differ in length: of
these the mark in the data of each message is counted. With `--acknowledges` the kernel acknowledges
at once the data that was read, for a server that waits for it (Nagle's
algorithm). The process prints a line when all clients are connected. Then it reads commands from
standard input, one a line, and answers each with a line of JSON:

- `expect N M`: replies when every client has received N more frames, with the time at which the
  last client had them; up to M frames of the following commands may have arrived as well;
- `examine N 0`: the same, but compares the bytes of all clients and also returns the payloads.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import select
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import islice, repeat

from bench.descriptors import raise_descriptor_limit
from bench.dialects import Dialect, EventStreamDialect, V1Dialect, WebSocketDialect
from bench.note import MARK
from bench.usage import end

# The most that one `recv` takes; more than any burst.
BUFFER_BYTES = 2**20

COMPRESSION = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"

# How long clients wait for a frame.
PATIENCE_SECONDS = 60.0


class Clients:
    """The clients, and how much each has received: bytes, or marks."""

    def __init__(
        self,
        sockets: list[socket.socket],
        dialect: Dialect,
        frame_bytes: int | None,
        *,
        acknowledges: bool,
    ) -> None:
        """`frame_bytes`: of each frame; None: they differ, and the mark in each is counted."""
        self._dialect = dialect
        self._size = frame_bytes or 1
        self._mark = None if frame_bytes else MARK.encode()
        self._epoll = select.epoll()
        self._receive: dict[int, Callable[[bytearray], int]] = {}
        self._acknowledge: dict[int, Callable[[int, int, int], None]] = {}
        self._received: dict[int, int] = {}
        self._due = 0
        """What each client has received in total when all expected frames have arrived."""
        for one in sockets:
            one.setblocking(False)
            self._epoll.register(one, select.EPOLLIN)
            self._receive[one.fileno()] = one.recv_into
            self._received[one.fileno()] = 0
            if acknowledges:
                self._acknowledge[one.fileno()] = one.setsockopt

    def expect(self, frames: int, ahead: int) -> float:
        """Receive `frames` more at every client; return the time at which the last had them."""
        return self._receive_all(frames, ahead)

    def examine(self, frames: int) -> tuple[float, list[str]]:
        """Do the same, check that all clients received equal bytes, and return the payloads."""
        received = {descriptor: b"" for descriptor in self._received}

        def keep(descriptor: int, data: memoryview) -> None:
            received[descriptor] += data

        at = self._receive_all(frames, 0, keep)
        texts = {tuple(self._messages(data)) for data in received.values()}
        (found,) = texts
        assert len(found) == frames, found
        if self._mark is None:
            (size,) = {len(data) for data in received.values()}
            assert size == frames * self._size, f"{size / frames} bytes a frame"
        return at, list(found)

    def _messages(self, received: bytes) -> list[str]:
        """Return the messages, without heartbeats and the like."""
        return [text for text in self._dialect.texts(received) if MARK in text]

    def _receive_all(
        self, frames: int, ahead: int, keep: Callable[[int, memoryview], None] | None = None
    ) -> float:
        self._due += frames * self._size
        due, receive, received, mark = self._due, self._receive, self._received, self._mark
        most = due + ahead * self._size
        acknowledge = self._acknowledge
        buffer = bytearray(BUFFER_BYTES)
        view = memoryview(buffer)
        missing = sum(total < due for total in received.values())
        while missing:
            ready = self._epoll.poll(PATIENCE_SECONDS, len(received))
            if not ready:
                raise TimeoutError(f"{missing} clients did not receive all expected frames")
            for descriptor, _ in ready:
                count = receive[descriptor](buffer)
                assert count, "the server closed a connection"
                if acknowledge:
                    # The kernel resets this option, so it is set again after each read.
                    acknowledge[descriptor](socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                if keep is not None:
                    keep(descriptor, view[:count])
                before = received[descriptor]
                more = count if mark is None else buffer.count(mark, 0, count)
                total = received[descriptor] = before + more
                if total >= due:
                    missing -= before < due
                    assert total <= most, "a client received more than was published"
        return time.monotonic()


def connected_sockets(
    port: int, dialects: Iterable[Dialect], together: int = 100
) -> Iterator[socket.socket]:
    """
    Yield blocking sockets, one for each dialect, that have received all before their messages.

    `together` clients connect at a time: fewer than the backlog of a server.
    """
    remaining = iter(dialects)
    while some := list(islice(remaining, together)):
        batch = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in some]
        for one, dialect in zip(batch, some, strict=True):
            one.sendall(dialect.request)
        begun = [dialect.begin(one) for one, dialect in zip(batch, some, strict=True)]
        for one, dialect, received in zip(batch, some, begun, strict=True):
            dialect.finish(one, received)
            yield one


class Load:
    """Controls the process of the clients."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def process_id(self) -> int:
        return self._process.pid

    def begin(self, verb: str, frames: int, ahead: int = 0) -> None:
        """Send the command `expect` or `examine`; call this before publishing."""
        assert self._process.stdin
        self._process.stdin.write(f"{verb} {frames} {ahead}\n".encode())

    async def end(self) -> tuple[float, list[str]]:
        """Return the time of the last delivery, by `time.monotonic()`, and the payloads."""
        assert self._process.stdout
        async with asyncio.timeout(PATIENCE_SECONDS * 2):
            line = await self._process.stdout.readline()
        if not line:
            raise ConnectionError("the client process has ended; its error is printed above")
        at, payloads = json.loads(line)
        return at, payloads


@asynccontextmanager
async def running_load(
    port: int, path: str, clients: int, frame_bytes: int, *options: str
) -> AsyncIterator[Load]:
    """Run the process until the context ends; yield once all clients are connected."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.load"),
        *(str(port), path, str(clients), str(frame_bytes), *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=BUFFER_BYTES,
    )
    try:
        load = Load(process)
        await load.end()
        yield load
    finally:
        await end(process)


def serve(clients: Clients) -> None:
    """Execute commands from standard input until it ends."""
    for line in sys.stdin:
        verb, frames, ahead = line.split()
        payloads: list[str] = []
        if verb == "examine":
            at, payloads = clients.examine(int(frames))
        else:
            at = clients.expect(int(frames), int(ahead))
        print(json.dumps([at, payloads]), flush=True)


def dialect_of(arguments: argparse.Namespace) -> Dialect:
    if arguments.events:
        return EventStreamDialect(arguments.path)
    if arguments.subscribes:
        return V1Dialect(arguments.path, arguments.subscribes)
    headers = [COMPRESSION] if arguments.offers_compression else []
    return WebSocketDialect(arguments.path, *headers, is_greeted=arguments.greeted)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("clients", type=int)
    parser.add_argument("frame_bytes", type=int)
    parser.add_argument("--greeted", action="store_true")
    parser.add_argument("--offers-compression", action="store_true")
    parser.add_argument("--acknowledges", action="store_true")
    parser.add_argument("--subscribes", metavar="CHANNEL")
    parser.add_argument("--events", action="store_true")
    arguments = parser.parse_args()
    raise_descriptor_limit()
    dialect = dialect_of(arguments)
    sockets = list(connected_sockets(arguments.port, repeat(dialect, arguments.clients)))
    has_marks = arguments.subscribes or arguments.events
    frame_bytes = None if has_marks else arguments.frame_bytes
    clients = Clients(sockets, dialect, frame_bytes, acknowledges=arguments.acknowledges)
    print(json.dumps([time.monotonic(), []]), flush=True)
    serve(clients)


if __name__ == "__main__":
    main()
