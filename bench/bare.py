"""
The lower limit of fan-out cost in Python: one `socket.send` of a prepared frame per client.

    python -m bench.bare CLIENTS FRAME_BYTES [--joins]

The server answers the handshakes of CLIENTS clients. Each line of standard input holds message
numbers, and the server sends these messages to all clients. It does nothing else per client: it has
no event loop and no buffer, and does not read from clients. With `--joins` it joins the frames of a
line into one `send` per client. It prints its port when it is ready.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from bench.contender import Contender
from bench.descriptors import raise_descriptor_limit
from bench.note import Notes
from bench.usage import end
from brain.transport.websocket_frames import WEBSOCKET_FRAMING
from tests.raw_websocket import HANDSHAKE_RESPONSE

BACKLOG = 2048


@asynccontextmanager
async def running_bare(
    name: str, notes: Notes, clients: int, *options: str
) -> AsyncIterator[Contender]:
    """Run the server in a separate process until the context ends."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.bare", str(clients), str(notes.frame_bytes), *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin and process.stdout
    stdin = process.stdin

    async def publish(numbers: Sequence[int]) -> None:
        stdin.write(f"{' '.join(map(str, numbers))}\n".encode())
        await stdin.drain()

    try:
        yield Contender(name, int(await process.stdout.readline()), process.pid, publish)
    finally:
        await end(process)


def accepted(listening: socket.socket) -> socket.socket:
    """Accept a client and answer its handshake."""
    client, _ = listening.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        received += client.recv(4096)
    client.sendall(HANDSHAKE_RESPONSE)
    return client


def send_to_all(clients: Sequence[socket.socket], frame: bytes) -> None:
    for client in clients:
        if client.send(frame) != len(frame):
            raise ConnectionError("a client does not read")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("clients", type=int)
    parser.add_argument("frame_bytes", type=int)
    parser.add_argument("--joins", action="store_true")
    arguments = parser.parse_args()
    raise_descriptor_limit()
    notes = Notes(arguments.frame_bytes)
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listening:
        print(listening.getsockname()[1], flush=True)
        clients = [accepted(listening) for _ in range(arguments.clients)]
    for line in sys.stdin:
        frames = [WEBSOCKET_FRAMING.frame(notes.message(int(number))) for number in line.split()]
        for frame in [b"".join(frames)] if arguments.joins else frames:
            send_to_all(clients, frame)


if __name__ == "__main__":
    main()
