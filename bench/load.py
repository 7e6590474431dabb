"""
WebSocket clients that count the bytes that they receive, in a separate process.

    python -m bench.load PORT PATH CLIENTS FRAME_BYTES [--greeted] [--offers-compression]
                         [--acknowledges]

The process does as little work as possible: one epoll, one `recv` into one buffer, one addition.
When it falls behind, one `recv` takes several frames, so it catches up. It does not decode frames:
all have the same length, so the number of bytes gives the number of frames. It is an error if a
client receives more than was published, or if its connection is closed. With `--acknowledges` the
kernel acknowledges at once the data that was read, for a server that waits for it (Nagle's
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
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

from bench.descriptors import raise_descriptor_limit
from bench.usage import end
from tests.raw_websocket import handshake, receive_handshake, split_frames

# The most that one `recv` takes; more than any burst.
BUFFER_BYTES = 2**20

COMPRESSION = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"

# How long clients wait for a frame.
PATIENCE_SECONDS = 60.0


class Clients:
    """The clients, and how many bytes each has received."""

    def __init__(
        self, sockets: list[socket.socket], frame_bytes: int, *, acknowledges: bool
    ) -> None:
        self._frame_bytes = frame_bytes
        self._epoll = select.epoll()
        self._receive: dict[int, Callable[[bytearray], int]] = {}
        self._acknowledge: dict[int, Callable[[int, int, int], None]] = {}
        self._received: dict[int, int] = {}
        self._due = 0
        """Bytes that each client has received in total when all expected frames have arrived."""
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
        texts = {descriptor: b"" for descriptor in self._received}

        def keep(descriptor: int, data: memoryview) -> None:
            texts[descriptor] += data

        at = self._receive_all(frames, 0, keep)
        (text,) = set(texts.values())
        found, left = split_frames(text)
        assert not left and len(found) == frames, text
        assert len(text) == frames * self._frame_bytes, f"{len(text) / frames} bytes a frame"
        return at, [frame.payload.decode() for frame in found]

    def _receive_all(
        self, frames: int, ahead: int, keep: Callable[[int, memoryview], None] | None = None
    ) -> float:
        self._due += frames * self._frame_bytes
        due, receive, received = self._due, self._receive, self._received
        most = due + ahead * self._frame_bytes
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
                if acknowledge:
                    # The kernel resets this option, so it is set again after each read.
                    acknowledge[descriptor](socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                if keep is not None:
                    keep(descriptor, view[:count])
                before = received[descriptor]
                total = received[descriptor] = before + count
                if total >= due:
                    missing -= before < due
                    assert total <= most, "a client received more than was published"
                assert count, "the server closed a connection"
        return time.monotonic()


def connected_sockets(
    port: int, request: bytes, clients: int, *, is_greeted: bool, together: int = 100
) -> Iterator[socket.socket]:
    """
    Yield blocking sockets after their handshake, and after their greeting if there is one.

    `together` clients connect at a time: fewer than the backlog of a server.
    """
    for start in range(0, clients, together):
        batch = [
            socket.create_connection(("127.0.0.1", port), timeout=60)
            for _ in range(min(together, clients - start))
        ]
        for one in batch:
            one.sendall(request)
        for one in batch:
            receive_greeting(one, is_greeted=is_greeted)
            yield one


def receive_greeting(client: socket.socket, *, is_greeted: bool) -> None:
    """Receive the response to the handshake and the greeting, if there is one; no more."""
    rest = receive_handshake(client)
    while len(split_frames(rest)[0]) < is_greeted:
        part = client.recv(BUFFER_BYTES)
        if not part:
            raise ConnectionError("the server closed the connection before its greeting")
        rest += part
    frames, left = split_frames(rest)
    assert len(frames) == is_greeted and not left, rest


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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("clients", type=int)
    parser.add_argument("frame_bytes", type=int)
    parser.add_argument("--greeted", action="store_true")
    parser.add_argument("--offers-compression", action="store_true")
    parser.add_argument("--acknowledges", action="store_true")
    arguments = parser.parse_args()
    raise_descriptor_limit()
    request = handshake(arguments.path, *([COMPRESSION] if arguments.offers_compression else []))
    sockets = list(
        connected_sockets(arguments.port, request, arguments.clients, is_greeted=arguments.greeted)
    )
    clients = Clients(sockets, arguments.frame_bytes, acknowledges=arguments.acknowledges)
    print(json.dumps([time.monotonic(), []]), flush=True)
    serve(clients)


if __name__ == "__main__":
    main()
