"""
Clients that reconnect with their cursor when they lose the connection, in a separate process.

    python -m bench.returners PORT CHANNEL CLIENTS JITTER_SECONDS

Before each attempt to connect, a client waits for a random time up to the jitter. There is no other
backoff: it tries again whenever it is refused, closed or asked to reconnect. Messages are numbered
from 1. A client counts a number that is missing before the next one as lost, and a number that
arrives again or late as doubled. The process prints a line when all clients have received the
greeting. Then it reads commands from standard input, one a line, and answers each with a line of
JSON:

- `live`: replies when all clients have received the greeting and the message that was then the
  newest one at any of them;
- `finish N`: replies with the `Report` when every client has received message N.
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

# How long to wait for events of sockets.
POLL_SECONDS = 0.02

CURSOR = b'"cursor":"'
NUMBER = b'"number": '
GREETING = b'{"type":"connected"'
RESET = b'{"type":"reset"'

# How many parsed messages are cached; all clients receive the same ones.
CACHED_MESSAGES = 1000


@dataclass(eq=False)
class Client:
    index: int
    cursor: str = ""
    number: int = 0
    """The number of the last message that it received."""
    connection: socket.socket | None = None
    received: bytes = b""
    """The bytes of a frame that is not complete."""
    is_upgraded: bool = False
    is_greeted: bool = False


class Parser:
    """Parses a message, once for all clients that receive it."""

    def __init__(self) -> None:
        self._cache: dict[bytes, tuple[str, int | None]] = {}

    def __call__(self, payload: bytes) -> tuple[str, int | None]:
        """Return the cursor of a message, and its number if it has one."""
        parsed = self._cache.get(payload)
        if parsed is None:
            if len(self._cache) > CACHED_MESSAGES:
                self._cache.clear()
            parsed = self._cache[payload] = cursor_in(payload), number_in(payload)
        return parsed


def cursor_in(payload: bytes) -> str:
    return payload.rpartition(CURSOR)[2].partition(b'"')[0].decode()


def number_in(payload: bytes) -> int | None:
    _, found, rest = payload.partition(NUMBER)
    return int(rest.partition(b"}")[0]) if found else None


class Returners:
    """All clients, with one epoll."""

    def __init__(self, port: int, channel: str, clients: int, jitter_seconds: float) -> None:
        self._port = port
        self._channel = channel
        self._jitter_seconds = jitter_seconds
        self._clients = [Client(index) for index in range(clients)]
        self._epoll = select.epoll()
        self._connected: dict[int, Client] = {}
        self._waiting: list[tuple[float, int]] = []
        """A heap of the times of the next attempts to connect, with the indices of the clients."""
        self._greeted = 0
        """How many connected clients have received the greeting."""
        self._deliveries: dict[int, int] = {}
        """For each message number, how many clients have received it."""
        self._parse = Parser()
        self._cpu_seconds = 0.0
        """The processor time of this process when the first connection ended."""
        self.report = Report()
        for client in self._clients:
            self._schedule_attempt(client)

    def run(self) -> None:
        """Start the attempts that are due, then handle the events of sockets."""
        self._connect_due()
        for descriptor, event in self._epoll.poll(POLL_SECONDS, len(self._clients)):
            self._handle_event(self._connected[descriptor], event)

    def all_are_greeted(self) -> bool:
        return self._greeted == len(self._clients)

    def newest(self) -> int:
        """Return the number of the newest message that any client has received, or 0."""
        return max(self._deliveries, default=0)

    def all_have(self, number: int) -> bool:
        return number == 0 or self._deliveries.get(number, 0) == len(self._clients)

    def count_missing(self, number: int) -> None:
        """Count as lost the messages up to this one that clients have not received."""
        self.report.lost += sum(max(0, number - client.number) for client in self._clients)

    def _schedule_attempt(self, client: Client) -> None:
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
        # The epoll reports the outcome, also a refusal.
        connection.connect_ex(("127.0.0.1", self._port))
        self._epoll.register(connection, select.EPOLLOUT)

    def _handle_event(self, client: Client, event: int) -> None:
        assert client.connection is not None
        try:
            if event & select.EPOLLOUT:
                self._send_request(client, client.connection)
            else:
                self._receive(client, client.connection)
        except OSError as error:
            self._connection_lost(client, client.connection, error.strerror or str(error))

    def _send_request(self, client: Client, connection: socket.socket) -> None:
        """Send the handshake on a connection that is established."""
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
            self._message_received(client, frame.payload)

    def _message_received(self, client: Client, payload: bytes) -> None:
        cursor, number = self._parse(payload)
        client.cursor = cursor
        if number is not None:
            self._count(client, number)
        elif payload.startswith(GREETING):
            self._greeting_received(client)
        elif payload.startswith(RESET):
            self.report.resets += 1

    def _greeting_received(self, client: Client) -> None:
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
        self._deliveries[number] = self._deliveries.get(number, 0) + 1
        if self.all_have(number):
            self.report.delivered_at[number] = time.monotonic()

    def _connection_lost(self, client: Client, connection: socket.socket, reason: str) -> None:
        """Count the lost connection, and schedule the next attempt of the client."""
        if not self.report.lost_first_at:
            self.report.lost_first_at = time.monotonic()
            self._cpu_seconds = time.process_time()
        self.report.closed[reason] = self.report.closed.get(reason, 0) + 1
        del self._connected[connection.fileno()]
        connection.close()
        self._greeted -= client.is_greeted
        client.is_greeted = False
        self._schedule_attempt(client)


def has_command() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


def run_until(returners: Returners, condition: Callable[[], bool]) -> None:
    """Run until the condition holds or PATIENCE_SECONDS have passed."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition() and time.monotonic() < end:
        returners.run()


def execute(returners: Returners, command: str) -> object:
    verb, *numbers = command.split()
    if verb == "live":
        run_until(returners, returners.all_are_greeted)
        newest = returners.newest()
        run_until(returners, lambda: returners.all_have(newest))
        return newest
    assert verb == "finish", command
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
        while not has_command():
            returners.run()
        command = sys.stdin.readline()
        if not command:
            return
        print(json.dumps(execute(returners, command)), flush=True)


if __name__ == "__main__":
    main()
