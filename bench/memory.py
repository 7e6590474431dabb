"""
Measure the memory that an idle client costs a server.

    python -m bench.memory [--clients 5000] [--quiet-seconds 3] [--repetitions 2]
                           [--peer NAME=HOST:PORT/PATH,PID ...]

The servers run one after the other, each in a separate process: Brain with plain clients, with such
that have sent a message and received some, with clients that get cursors, of brain.v1 with one
subscription, and of server-sent events; and an endpoint on Starlette and uvicorn that only waits,
once without compression, as in Brain, and once with compression, the default of uvicorn if the
client offers it. A peer is any WebSocket server that runs already and sends nothing by itself: its
clients connect to PATH, and the memory is that of the process PID. It is measured once, because
what its clients leave would be used again; so it has to be started anew for each run.

A hundred clients connect first, so that everything is loaded that is loaded once; then CLIENTS more
connect. The cost of one client is the difference of the memory before and after these, each read
after some quiet seconds, divided by their number.

The memory is that of the process: its private memory, which it shares with no other process (the
private pages of smaps_rollup), and its resident set. Sockets and their buffers in the kernel are
not included; they are the same for every server.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import re
import socket
import statistics
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import uvicorn

from bench.brain import brain_for_many, publisher
from bench.contender import Publish
from bench.descriptors import fitting
from bench.dialects import (
    Dialect,
    EventStreamDialect,
    V1Dialect,
    WebSocketDialect,
    receive_until,
)
from bench.load import alike, by_mark, running_load
from bench.naive import running_naive
from bench.note import FIRST_NUMBER, Notes
from bench.processes import resident_bytes
from bench.server import Server, running_server
from bench.usage import private_bytes
from tests.raw_websocket import client_frame, split_frames

FIRST_CLIENTS = 100

NOTES = Notes(frame_bytes=200)
CHANNEL = "tasks"
# Of clients that have received something.
MESSAGES = 10

COMPRESSION = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
PEER = re.compile(r"(?P<name>[^=]+)=(?P<host>[^:]+):(?P<port>\d+)(?P<path>/[^,]*),(?P<process>\d+)")


class GreetedDialect(WebSocketDialect):
    """A WebSocket that is greeted; heartbeats may come among the first messages."""

    def __init__(self, path: str, *sent: str) -> None:
        """`sent` are messages of the client that are answered, each by one."""
        super().__init__(path, is_greeted=True)
        self._sent = b"".join(client_frame(text.encode()) for text in sent)
        self._messages = 1 + len(sent)

    def begin(self, connection: socket.socket) -> bytes:
        rest = super().begin(connection)
        connection.sendall(self._sent)
        return rest

    def finish(self, connection: socket.socket, received: bytes) -> None:
        receive_until(
            connection,
            received,
            lambda received: len(split_frames(received)[0]) >= self._messages,
        )


class Running(NamedTuple):
    """A server that runs."""

    host: str
    port: int
    process_id: int
    publish: Publish | None = None


Starting = Callable[[Server, Path], AbstractAsyncContextManager[Running]]


@dataclass(frozen=True)
class Row:
    """A server, a kind of client, and the bytes per client in each repetition."""

    name: str
    start: Starting
    dialect: Dialect
    messages: int = 0
    """How many each client receives before the memory is read."""
    private: list[float] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)


@asynccontextmanager
async def brain(server: Server, folder: Path) -> AsyncIterator[Running]:
    async with brain_for_many(server.url, folder) as running:
        publish = publisher(server.admin, NOTES, CHANNEL)
        yield Running("127.0.0.1", running.port, running.process.pid, publish)


@asynccontextmanager
async def waiting(*options: str) -> AsyncIterator[Running]:
    async with running_naive("waiting", NOTES, *options) as contender:
        yield Running("127.0.0.1", contender.port, contender.process_id)


def peer(text: str) -> Row:
    """Return the row of a peer. Raises `ValueError`, which argparse reports."""
    found = PEER.fullmatch(text)
    if found is None:
        raise ValueError(text)

    @asynccontextmanager
    async def start(*_: object) -> AsyncIterator[Running]:
        yield Running(found["host"], int(found["port"]), int(found["process"]))

    return Row(found["name"], start, WebSocketDialect(found["path"], is_greeted=False))


def rows() -> tuple[Row, ...]:
    plain = WebSocketDialect("/ws", is_greeted=False)
    compressing = WebSocketDialect("/ws", COMPRESSION, is_greeted=False)
    return (
        Row("Brain, /ws", brain, GreetedDialect("/ws")),
        Row("Brain, /ws, after messages", brain, GreetedDialect("/ws", "hello"), MESSAGES),
        Row("Brain, /ws?cursor=", brain, GreetedDialect("/ws?cursor=")),
        Row("Brain, /ws/v1, one subscription", brain, V1Dialect("/ws/v1", CHANNEL)),
        Row("Brain, /sse", brain, EventStreamDialect(f"/sse?channel={CHANNEL}")),
        Row("uvicorn, no compression", lambda *_: waiting(), plain),
        Row("uvicorn, as it comes", lambda *_: waiting("--compresses"), compressing),
    )


async def measure(
    row: Row,
    starting: AbstractAsyncContextManager[Running],
    clients: int,
    quiet_seconds: float,
) -> None:
    """Connect the clients, and add the bytes per client to the row."""

    @asynccontextmanager
    async def connected(running: Running, clients: int) -> AsyncIterator[tuple[int, int]]:
        """Connect clients; yield the private and the resident memory of the server then."""
        dialects = alike(row.dialect, clients)
        counting = by_mark()
        async with running_load(running.port, dialects, *counting, host=running.host) as load:
            if row.messages and running.publish is not None:
                load.expect(row.messages)
                await running.publish(range(FIRST_NUMBER, FIRST_NUMBER + row.messages))
                await load.received()
            await asyncio.sleep(quiet_seconds)
            yield private_bytes(running.process_id), resident_bytes(running.process_id)

    async with (
        starting as running,
        connected(running, FIRST_CLIENTS) as (private, resident),
        connected(running, clients) as (private_then, resident_then),
    ):
        row.private.append((private_then - private) / clients)
        row.resident.append((resident_then - resident) / clients)


def print_rows(measured: Sequence[Row], peers: Sequence[Row]) -> None:
    without, stock = (statistics.median(row.private) for row in measured[-2:])
    print(
        f"{'KiB for a client that is idle':<32}{'private':>9}{'resident':>10}"
        f"{': no compression':>18}{': as it comes':>15}"
    )
    for row in (*measured, *peers):
        private = statistics.median(row.private)
        print(
            f"{row.name:<32}{private / 1024:>9.1f}{statistics.median(row.resident) / 1024:>10.1f}"
            f"{private / without:>16.2f} x{private / stock:>13.2f} x"
        )
    print("memory of the server's process; sockets and their buffers in the kernel do not count")


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n\n")[0])
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--quiet-seconds", type=float, default=3, help="before memory is read")
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument(
        "--peer", type=peer, action="append", default=[], metavar="NAME=HOST:PORT/PATH,PID"
    )
    arguments = parser.parse_args()
    (clients,) = fitting([arguments.clients])
    measured = rows()
    with tempfile.TemporaryDirectory() as folder:
        async with running_server(Path(folder)) as server:
            for repetition in range(arguments.repetitions):
                for row in (*measured, *(arguments.peer if repetition == 0 else ())):
                    starting = row.start(server, Path(folder))
                    await measure(row, starting, clients, arguments.quiet_seconds)
    print(
        f"{clients:,} clients, Python {platform.python_version()}, uvicorn {uvicorn.__version__};"
        f" median of {arguments.repetitions}\n"
    )
    print_rows(measured, arguments.peer)


if __name__ == "__main__":
    asyncio.run(main())
