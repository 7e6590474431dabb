"""
Clients of brain.v1 that note how old each change of a task is, in a separate process.

    python -m bench.row_clients PORT CLIENTS EXAMINED [--rows]

With `--rows` client n is subscribed to the task n, otherwise all are to the whole channel. All of
them read what they are sent; of EXAMINED of them each message is looked into: its `progress` is the
time at which the statement ran that changed the row. The process prints a line when all clients are
subscribed. Then it answers each line of standard input with a line of JSON: how many messages these
clients have received since the last one, and in milliseconds the ages of them all.
"""

from __future__ import annotations

import argparse
import json
import re
import select
import socket
import sys
import time

from bench.descriptors import raise_descriptor_limit
from bench.dialects import V1Dialect
from bench.load import BUFFER_BYTES, connected_sockets

PROGRESS = re.compile(rb'"op":"update","channel":"tasks".*?"row":\{.*?"progress"\s*:\s*([0-9.e+]+)')


class Examined:
    """A client each message of which is looked into."""

    def __init__(self) -> None:
        self.milliseconds: list[float] = []
        self._rest = b""

    def received(self, data: bytes, at: float) -> None:
        text, end = self._rest + data, 0
        for found in PROGRESS.finditer(text):
            self.milliseconds.append((at - float(found[1])) * 1000)
            end = found.end()
        self._rest = text[end:]


def serve(sockets: list[socket.socket], examined: dict[int, Examined]) -> None:
    """Read from all sockets, and answer standard input until it ends."""
    epoll = select.epoll()
    by_descriptor = {one.fileno(): one for one in sockets}
    for socket_descriptor in by_descriptor:
        epoll.register(socket_descriptor, select.EPOLLIN)
    epoll.register(sys.stdin.fileno(), select.EPOLLIN)
    buffer = bytearray(BUFFER_BYTES)
    while True:
        for descriptor, _ in epoll.poll():
            if descriptor == sys.stdin.fileno():
                if not sys.stdin.readline():
                    return
                ages = [age for each in examined.values() for age in each.milliseconds]
                for each in examined.values():
                    each.milliseconds.clear()
                print(json.dumps([len(ages), ages]), flush=True)
                continue
            count = by_descriptor[descriptor].recv_into(buffer)
            assert count, "the server closed a connection"
            client = examined.get(descriptor)
            if client is not None:
                client.received(bytes(buffer[:count]), time.time())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("clients", type=int)
    parser.add_argument("examined", type=int)
    parser.add_argument("--rows", action="store_true")
    arguments = parser.parse_args()
    raise_descriptor_limit()
    keys = [str(number) if arguments.rows else None for number in range(1, arguments.clients + 1)]
    dialects = [V1Dialect("/ws/v1", "tasks", key) for key in keys]
    sockets = list(connected_sockets(arguments.port, dialects))
    examined = {one.fileno(): Examined() for one in sockets[: arguments.examined]}
    print(json.dumps([0, []]), flush=True)
    serve(sockets, examined)


if __name__ == "__main__":
    main()
