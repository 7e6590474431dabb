"""
Measure the memory that an idle client costs a server.

    python -m bench.memory [--clients 5000] [--quiet-seconds 3]

The servers run one after the other, each in a separate process: Brain with plain clients and with
clients that get cursors; and an endpoint on Starlette and uvicorn that only waits, once without
compression, as in Brain, and once with compression, the default of uvicorn if the client offers it.
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
import statistics
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from bench.brain import brain_for_many
from bench.descriptors import fitting
from bench.dialects import Dialect, WebSocketDialect
from bench.load import alike, by_length, running_load
from bench.naive import running_naive
from bench.note import Notes
from bench.processes import resident_bytes
from bench.server import Server, running_server
from bench.usage import private_bytes

FIRST_CLIENTS = 100

# Nothing is published, so the length does not matter.
NOTES = Notes(frame_bytes=200)

COMPRESSION = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"

Running = AbstractAsyncContextManager[tuple[int, int]]
"""A running server: yields its port and its process id."""


@dataclass(frozen=True)
class Row:
    """A server, a kind of client, and the bytes per client in each repetition."""

    name: str
    start: Callable[[Server, Path], Running]
    dialect: Dialect
    private: list[float] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)


@asynccontextmanager
async def brain(server: Server, folder: Path) -> AsyncIterator[tuple[int, int]]:
    async with brain_for_many(server.url, folder) as running:
        yield running.port, running.process.pid


@asynccontextmanager
async def waiting(*options: str) -> AsyncIterator[tuple[int, int]]:
    async with running_naive("waiting", NOTES, *options) as contender:
        yield contender.port, contender.process_id


def rows() -> tuple[Row, ...]:
    plain = WebSocketDialect("/ws", is_greeted=False)
    compressing = WebSocketDialect("/ws", COMPRESSION, is_greeted=False)
    return (
        Row("Brain, /ws", brain, WebSocketDialect("/ws", is_greeted=True)),
        Row("Brain, /ws?cursor=", brain, WebSocketDialect("/ws?cursor=", is_greeted=True)),
        Row("uvicorn, no compression", lambda *_: waiting(), plain),
        Row("uvicorn, as it comes", lambda *_: waiting("--compresses"), compressing),
    )


async def measure(row: Row, running: Running, clients: int, quiet_seconds: float) -> None:
    """Connect the clients, and add the bytes per client to the row."""

    async def used(process: int) -> tuple[int, int]:
        await asyncio.sleep(quiet_seconds)
        return private_bytes(process), resident_bytes(process)

    counting = by_length(NOTES.frame_bytes)
    async with (
        running as (port, process),
        running_load(port, alike(row.dialect, FIRST_CLIENTS), *counting),
    ):
        private, resident = await used(process)
        async with running_load(port, alike(row.dialect, clients), *counting):
            private_then, resident_then = await used(process)
    row.private.append((private_then - private) / clients)
    row.resident.append((resident_then - resident) / clients)


def print_rows(measured: Sequence[Row]) -> None:
    without, stock = (statistics.median(row.private) for row in measured[-2:])
    print(
        f"{'KiB for a client that is idle':<32}{'private':>9}{'resident':>10}"
        f"{': no compression':>18}{': as it comes':>15}"
    )
    for row in measured:
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
    arguments = parser.parse_args()
    (clients,) = fitting([arguments.clients])
    measured = rows()
    with tempfile.TemporaryDirectory() as folder:
        async with running_server(Path(folder)) as server:
            for _ in range(arguments.repetitions):
                for row in measured:
                    running = row.start(server, Path(folder))
                    await measure(row, running, clients, arguments.quiet_seconds)
    print(
        f"{clients:,} clients, Python {platform.python_version()}, uvicorn {uvicorn.__version__};"
        f" median of {arguments.repetitions}\n"
    )
    print_rows(measured)


if __name__ == "__main__":
    asyncio.run(main())
