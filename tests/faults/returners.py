"""
Many clients in a process of their own that come back by themselves when they are closed.

    python -m tests.faults.returners CLIENTS PORT [PORT...] [--path PATH]

A client that is closed connects again, to any of the ports; where it is refused, it tries again.
With a path that ends in `cursor=` clients resume. The program prints `{"clients": n}` once all are
connected. Then it reads commands, one per line, and answers each with a line of JSON:

    use PORT [PORT...]   connect to these ports from now on, as a load balancer would have it
    report NUMBER        wait until all have received the message with this number, or too long;
                         the answer is a `Report`
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import select
import socket
import sys
from collections import Counter, defaultdict, deque
from dataclasses import asdict, dataclass, field
from random import Random
from time import monotonic
from urllib.parse import quote

from tests.faults.onlookers import Delays, Onlooker
from tests.raw_websocket import CLOSE, RECEIVE_BYTES, after_handshake, handshake

GREETING = b'{"type":"connected"'
LONGEST_PAUSE_SECONDS = 0.1
"""How long a client waits before it tries to come back, at most."""
PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.05
WINDOW_SECONDS = 1.0


@dataclass
class Report:
    """Totals over all clients."""

    lost: int = 0
    """By clients with cursors, as are the next two."""
    doubled: int = 0
    resets: int = 0
    returns: int = 0
    longest_wait: float = 0.0
    """In seconds, from the close of a client until it was greeted again."""
    most_in_a_second: int = 0
    """How many were greeted in the same second."""
    codes: dict[str, int] = field(default_factory=dict)
    """How often connections ended with each close code, or `none`."""


class Returner(Onlooker):
    """One client, which connects without waiting."""

    def __init__(self, delays: Delays, path: str) -> None:
        super().__init__(delays)
        self._path = path
        self._is_upgraded = False
        self._head = b""
        self.is_greeted = False
        self.code: int | None = None
        self.left_at = monotonic()
        """When its connection ended; as long as it is not greeted."""

    def begin(self, port: int) -> None:
        """Begin to connect; epoll reports the outcome."""
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self._is_upgraded, self._head, self._rest, self.code = False, b"", b"", None
        self.socket.connect_ex(("127.0.0.1", port))

    def send_handshake(self) -> None:
        """Raises `OSError` if there is no connection."""
        cursor = quote(self.cursor, safe="") if self._path.endswith("cursor=") else ""
        self.socket.sendall(handshake(self._path + cursor))

    def receive(self) -> bool:
        if self._is_upgraded:
            return super().receive()
        data = self.socket.recv(RECEIVE_BYTES)
        self._head += data
        rest = after_handshake(self._head)
        if rest is not None:
            self._is_upgraded = self.is_connected = True
            self._take(rest)
        return bool(data)

    def _take_other(self, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE:
            self.code = int.from_bytes(payload[:2], "big")
        elif payload.startswith(GREETING):
            self.is_greeted = True
        else:
            super()._take_other(opcode, payload)


class Returners:
    """All clients of the process."""

    def __init__(self, clients: int, ports: list[int], path: str) -> None:
        self.ports = ports
        self._resumes = path.endswith("cursor=")
        self._chance = Random(clients)
        self._clients = [Returner(defaultdict(Counter), path) for _ in range(clients)]
        self._epoll = select.epoll()
        self._connected: dict[int, Returner] = {}
        self._due: list[tuple[float, int, int]] = []
        """A heap: when which client tries to connect, and to which port."""
        self._greeted_at: deque[float] = deque()
        """When clients were greeted in the last second."""
        self._greeted = 0
        self.report = Report()
        for index in range(clients):
            self._schedule(index, self._chance.choice(ports))

    @property
    def all_are_greeted(self) -> bool:
        return self._greeted == len(self._clients)

    def all_have(self, number: int) -> bool:
        return all(client.last >= number for client in self._clients)

    def run(self) -> None:
        """Begin the attempts that are due, and take what has arrived."""
        while self._due and self._due[0][0] <= monotonic():
            _, index, port = heapq.heappop(self._due)
            self._clients[index].begin(port)
            self._connected[self._clients[index].socket.fileno()] = self._clients[index]
            self._epoll.register(self._clients[index].socket, select.EPOLLOUT)
        for place, event in self._epoll.poll(POLL_SECONDS, len(self._clients)):
            self._handle(self._connected[place], event)

    def finish(self, number: int) -> Report:
        """Wait for the message with this number, and return the totals."""
        deadline = monotonic() + PATIENCE_SECONDS
        while not (self.all_are_greeted and self.all_have(number)) and monotonic() < deadline:
            self.run()
        if self._resumes:
            clients = self._clients
            missing = sum(max(0, number - client.last) for client in clients)
            self.report.lost = sum(client.lost for client in clients) + missing
            self.report.doubled = sum(client.doubled for client in clients)
            self.report.resets = sum(client.resets for client in clients)
        waiting = [monotonic() - one.left_at for one in self._clients if not one.is_greeted]
        self.report.longest_wait = max([self.report.longest_wait, *waiting])
        return self.report

    def _schedule(self, index: int, port: int) -> None:
        at = monotonic() + self._chance.uniform(0, LONGEST_PAUSE_SECONDS)
        heapq.heappush(self._due, (at, index, port))

    def _handle(self, client: Returner, event: int) -> None:
        was_greeted = client.is_greeted
        try:
            if event & select.EPOLLOUT:
                client.send_handshake()
                self._epoll.modify(client.socket, select.EPOLLIN)
                return
            is_open = client.receive()
        except OSError:
            is_open = False
        if client.is_greeted and not was_greeted:
            self._note_greeting(client)
        if not is_open or client.code is not None:
            self._note_end(client)

    def _note_greeting(self, client: Returner) -> None:
        self._greeted += 1
        now, times = monotonic(), self._greeted_at
        self.report.returns += 1
        self.report.longest_wait = max(self.report.longest_wait, now - client.left_at)
        times.append(now)
        while times[0] < now - WINDOW_SECONDS:
            times.popleft()
        self.report.most_in_a_second = max(self.report.most_in_a_second, len(times))

    def _note_end(self, client: Returner) -> None:
        del self._connected[client.socket.fileno()]
        client.leave()
        if client.is_greeted:
            client.is_greeted = False
            client.left_at = monotonic()
            self._greeted -= 1
            code = str(client.code or "none")
            self.report.codes[code] = self.report.codes.get(code, 0) + 1
        self._schedule(self._clients.index(client), self._chance.choice(self.ports))


def has_input() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.returners", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("clients", type=int)
    parser.add_argument("ports", type=int, nargs="+")
    parser.add_argument("--path", default="/ws")
    options = parser.parse_args()
    returners = Returners(options.clients, options.ports, options.path)
    while not returners.all_are_greeted:
        returners.run()
    returners.report = Report()
    print(json.dumps({"clients": options.clients}), flush=True)
    while True:
        while not has_input():
            returners.run()
        verb, *numbers = os.read(sys.stdin.fileno(), 1000).decode().split() or ["end"]
        match verb:
            case "use":
                returners.ports = [int(number) for number in numbers]
                print("{}", flush=True)
            case "report":
                print(json.dumps(asdict(returners.finish(int(numbers[0])))), flush=True)
            case _:
                return


if __name__ == "__main__":
    main()
