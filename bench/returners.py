"""
Many clients that come back with their cursor whenever they lose Brain, in a process of their own.

    python -m bench.returners PORT CHANNEL CLIENTS JITTER_SECONDS

Before each attempt to connect a client waits for a random time up to the jitter, and for no other
reason: if it is refused, closed or told to come back, it does. The messages are numbered from 1. A
client counts a number that it did not get before the next one as lost, and one that it gets again,
or late, as doubled. It prints
a line when all are greeted, and then answers lines of standard input, each with a line of JSON:

- `live`: when all are greeted, and have the newest message that any of them had by then;
- `finish N`: the `Report`, when every client has the message with that number.
"""

from __future__ import annotations

import heapq
import json
import random
import select
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from bench.crowd import PATIENCE_SECONDS, Report
from bench.descriptors import raise_descriptor_limit
from tests.raw_websocket import CLOSE, after_handshake, handshake, split_frames

# More than any burst.
BUFFER_BYTES = 2**20

# How long to wait where there is nothing to do.
MOMENT_SECONDS = 0.02

CURSOR = b'"cursor":"'
NUMBER = b'"number":'
GREETING = b'{"type":"connected"'
RESET = b'{"type":"reset"'

# Of messages that have been read, which all clients get alike.
REMEMBERED = 1000


@dataclass(eq=False)
class Client:
    index: int
    cursor: str = ""
    number: int = 0
    """Of the last message."""
    connection: socket.socket | None = None
    received: bytes = b""
    """What is not a whole frame yet."""
    is_upgraded: bool = False
    is_greeted: bool = False


class Read:
    """What a message says, each read once however many clients get it."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[str, int | None]] = {}

    def __call__(self, payload: bytes) -> tuple[str, int | None]:
        """Return the cursor, and the number if it has one."""
        known = self._known.get(payload)
        if known is None:
            if len(self._known) > REMEMBERED:
                self._known.clear()
            known = self._known[payload] = cursor_in(payload), number_in(payload)
        return known


def cursor_in(payload: bytes) -> str:
    return payload.rpartition(CURSOR)[2].partition(b'"')[0].decode()


def number_in(payload: bytes) -> int | None:
    _, found, rest = payload.partition(NUMBER)
    return int(rest.partition(b"}")[0]) if found else None


class Returners:
    """All the clients, and one epoll for them."""

    def __init__(self, port: int, channel: str, clients: int, jitter_seconds: float) -> None:
        self._port = port
        self._channel = channel
        self._jitter_seconds = jitter_seconds
        self._clients = [Client(index) for index in range(clients)]
        self._epoll = select.epoll()
        self._connected: dict[int, Client] = {}
        self._waiting: list[tuple[float, int]] = []
        """A heap of when clients try to connect, and their indices."""
        self._greeted = 0
        """How many clients are connected and welcome."""
        self._told: dict[int, int] = {}
        """How many clients have a message."""
        self._read = Read()
        self._cpu_seconds = 0.0
        """The processor time of this process when the first connection ended."""
        self.report = Report()
        for client in self._clients:
            self._wait(client)

    def run(self) -> None:
        """Do what there is to do, or wait for it for a moment."""
        self._connect_due()
        for descriptor, event in self._epoll.poll(MOMENT_SECONDS, len(self._clients)):
            self._attend(self._connected[descriptor], event)

    def all_are_greeted(self) -> bool:
        return self._greeted == len(self._clients)

    def newest(self) -> int:
        """Return the number of the newest message that any client has; 0 without one."""
        return max(self._told, default=0)

    def all_have(self, number: int) -> bool:
        return number == 0 or self._told.get(number, 0) == len(self._clients)

    def count_missing(self, number: int) -> None:
        """Count as lost what has not come up to this message."""
        self.report.lost += sum(max(0, number - client.number) for client in self._clients)

    def _wait(self, client: Client) -> None:
        at = time.monotonic() + random.uniform(0, self._jitter_seconds)
        heapq.heappush(self._waiting, (at, client.index))

    def _connect_due(self) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            self._connect(self._clients[heapq.heappop(self._waiting)[1]])

    def _connect(self, client: Client) -> None:
        self.report.attempts += 1
        connection = socket.socket()
        connection.setblocking(False)
        client.connection, client.received, client.is_upgraded = connection, b"", False
        self._connected[connection.fileno()] = client
        # What comes of it the epoll tells, a refusal as well.
        connection.connect_ex(("127.0.0.1", self._port))
        self._epoll.register(connection, select.EPOLLOUT)

    def _attend(self, client: Client, event: int) -> None:
        assert client.connection is not None
        try:
            if event & select.EPOLLOUT:
                self._ask(client, client.connection)
            else:
                self._receive(client, client.connection)
        except OSError as error:
            self._lose(client, client.connection, error.strerror or str(error))

    def _ask(self, client: Client, connection: socket.socket) -> None:
        """Send the request on a connection that has come about."""
        path = f"/ws?channel={self._channel}&cursor={client.cursor}"
        connection.sendall(handshake(path))
        self._epoll.modify(connection, select.EPOLLIN)

    def _receive(self, client: Client, connection: socket.socket) -> None:
        received = connection.recv(BUFFER_BYTES)
        if not received:
            raise ConnectionError("closed without a code")
        client.received += received
        if not client.is_upgraded:
            rest = after_handshake(client.received)
            if rest is None:
                return
            client.is_upgraded, client.received = True, rest
        frames, client.received = split_frames(client.received)
        for frame in frames:
            if frame.opcode == CLOSE:
                code = int.from_bytes(frame.payload[:2], "big")
                raise ConnectionError(f"closed with {code}")
            self._take(client, frame.payload)

    def _take(self, client: Client, payload: bytes) -> None:
        cursor, number = self._read(payload)
        client.cursor = cursor
        if number is not None:
            self._count(client, number)
        elif payload.startswith(GREETING):
            self._welcome(client)
        elif payload.startswith(RESET):
            self.report.resets += 1

    def _welcome(self, client: Client) -> None:
        client.is_greeted = True
        self._greeted += 1
        self.report.greeted += 1
        self.report.greeted_last_at = time.monotonic()
        self.report.cpu_seconds = time.process_time() - self._cpu_seconds

    def _count(self, client: Client, number: int) -> None:
        if number <= client.number:
            self.report.doubled += 1
            return
        self.report.lost += number - client.number - 1
        client.number = number
        self._told[number] = self._told.get(number, 0) + 1
        if self.all_have(number):
            self.report.told_at[number] = time.monotonic()

    def _lose(self, client: Client, connection: socket.socket, reason: str) -> None:
        """Have the client come back."""
        if not self.report.lost_first_at:
            self.report.lost_first_at = time.monotonic()
            self._cpu_seconds = time.process_time()
        self.report.closed[reason] = self.report.closed.get(reason, 0) + 1
        del self._connected[connection.fileno()]
        connection.close()
        self._greeted -= client.is_greeted
        client.is_greeted = False
        self._wait(client)


def is_asked() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


def run_until(returners: Returners, condition: Callable[[], bool]) -> None:
    """Run until the condition holds, or patience is at its end."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition() and time.monotonic() < end:
        returners.run()


def answer(returners: Returners, asked: str) -> object:
    verb, *numbers = asked.split()
    if verb == "live":
        run_until(returners, returners.all_are_greeted)
        newest = returners.newest()
        run_until(returners, lambda: returners.all_have(newest))
        return newest
    assert verb == "finish", asked
    (number,) = map(int, numbers)
    run_until(returners, lambda: returners.all_have(number))
    returners.count_missing(number)
    return asdict(returners.report)


def main() -> None:
    port, channel, clients, jitter_seconds = sys.argv[1:]
    raise_descriptor_limit()
    returners = Returners(int(port), channel, int(clients), float(jitter_seconds))
    run_until(returners, returners.all_are_greeted)
    assert returners.all_are_greeted(), returners.report
    returners.report = Report()
    print(json.dumps(None), flush=True)
    while True:
        while not is_asked():
            returners.run()
        asked = sys.stdin.readline()
        if not asked:
            return
        print(json.dumps(answer(returners, asked)), flush=True)


if __name__ == "__main__":
    main()
