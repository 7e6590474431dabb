"""
Many WebSocket clients that count what they receive, in a process of their own.

    python -m bench.load PORT PATH CLIENTS FRAME_BYTES [--greeted] [--offers-compression]
                         [--acknowledges]

It does as little as can be: one epoll, one `recv` into one buffer, and an addition. Where it falls
behind, one `recv` takes several frames, so it is the sooner done. Frames are not decoded; all have
the same length, so the bytes of a client say how many it has. A client that gets more than was
published is an error, and so is one that is closed. `--acknowledges` has the kernel acknowledge at
once what was read, for a server that waits for it (Nagle's algorithm). It prints a line when all
are connected, and then answers lines of standard input, each with a line of JSON:

- `expect N M`: when every client has N frames more, with the time at which the last one had them;
  up to M of those that will be expected next may have come as well;
- `examine N 0`: the same, after comparing the clients' bytes, with the payloads of the frames.
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

# The longest frame that one `recv` takes in whole, and more than any burst.
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
        """Bytes that every client has been sent when all that is expected has come."""
        for one in sockets:
            one.setblocking(False)
            self._epoll.register(one, select.EPOLLIN)
            self._receive[one.fileno()] = one.recv_into
            self._received[one.fileno()] = 0
            if acknowledges:
                self._acknowledge[one.fileno()] = one.setsockopt

    def expect(self, frames: int, ahead: int) -> float:
        """Receive so many frames more with every client; return when the last one had them."""
        return self._receive_all(frames, ahead)

    def examine(self, frames: int) -> tuple[float, list[str]]:
        """Do the same, see that all clients received the same, and return the payloads."""
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
                raise TimeoutError(f"{missing} clients wait for more than was sent to them")
            for descriptor, _ in ready:
                count = receive[descriptor](buffer)
                if acknowledge:
                    # It does not last.
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
    Yield blocking sockets whose handshake is over, and whose greeting is taken if there is one.

    So many `together` wait for their answers at a time: fewer than a server can queue.
    """
    for start in range(0, clients, together):
        batch = [
            socket.create_connection(("127.0.0.1", port), timeout=60)
            for _ in range(min(together, clients - start))
        ]
        for one in batch:
            one.sendall(request)
        for one in batch:
            take_greeting(one, is_greeted=is_greeted)
            yield one


def take_greeting(client: socket.socket, *, is_greeted: bool) -> None:
    """Receive the response to the handshake, the message after it if there is one, and no more."""
    rest = receive_handshake(client)
    while len(split_frames(rest)[0]) < is_greeted:
        part = client.recv(BUFFER_BYTES)
        if not part:
            raise ConnectionError("the server closed the connection before its greeting")
        rest += part
    frames, left = split_frames(rest)
    assert len(frames) == is_greeted and not left, rest


class Load:
    """The process, as the benchmark speaks with it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def process_id(self) -> int:
        return self._process.pid

    def begin(self, verb: str, frames: int, ahead: int = 0) -> None:
        """Have it `expect` or `examine`; to be called before anything is published."""
        assert self._process.stdin
        self._process.stdin.write(f"{verb} {frames} {ahead}\n".encode())

    async def end(self) -> tuple[float, list[str]]:
        """Return when the last client had everything, by `time.monotonic()`, and the payloads."""
        assert self._process.stdout
        async with asyncio.timeout(PATIENCE_SECONDS * 2):
            line = await self._process.stdout.readline()
        if not line:
            raise ConnectionError("the clients have ended; what they died of is above")
        at, payloads = json.loads(line)
        return at, payloads


@asynccontextmanager
async def running_load(
    port: int, path: str, clients: int, frame_bytes: int, *options: str
) -> AsyncIterator[Load]:
    """Run it until the context ends; yield it once all are connected."""
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
    """Answer lines until there are no more."""
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
