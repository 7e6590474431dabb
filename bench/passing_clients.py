"""
Clients of brain.v1 that come and go, and note how old each change of a task is.

    python -m bench.passing_clients PORT CLIENTS STAY_SECONDS

Client n is subscribed to the task n. Each stays for about so many seconds; then another one comes
in its place. Every other one leaves without a word, the rest send a close frame and wait for the
server's. A line is printed when all have subscribed. Then each line of standard input is answered
with a line of JSON: how many clients have come since the last one, and the ages of all changes that
were received, in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import re
import select
import socket
import sys
import time
from itertools import count

from bench.descriptors import raise_descriptor_limit
from bench.dialects import SUBSCRIBED
from tests.raw_websocket import CLOSE, client_frame, handshake

# How often clients are replaced.
STEP_SECONDS = 0.02
RECEIVE_BYTES = 65536
BUFFER_BYTES = 2**20

PROGRESS = re.compile(rb'"op":"update","channel":"tasks".*?"row":\{.*?"progress"\s*:\s*([0-9.e+]+)')


class PassingClient:
    """One connection, which asks for its task once the handshake is done."""

    def __init__(self, port: int, key: str) -> None:
        self.key = key
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.sendall(handshake("/ws/v1"))
        self.socket.setblocking(False)
        self.is_subscribed = self._has_asked = self._is_leaving = False
        self._rest = b""

    def received(self, data: bytes, at: float, milliseconds: list[float]) -> None:
        """Take the next bytes, and add the ages of the changes in them."""
        text, end = self._rest + data, 0
        if not self._has_asked and b"\r\n\r\n" in text:
            frame = {"type": "subscribe", "id": "a", "channel": "tasks", "key": [self.key]}
            self.socket.send(client_frame(json.dumps(frame).encode()))
            self._has_asked = True
        self.is_subscribed = self.is_subscribed or SUBSCRIBED in text
        for found in PROGRESS.finditer(text):
            milliseconds.append((at - float(found[1])) * 1000)
            end = found.end()
        self._rest = text[end:]

    def leave(self) -> None:
        """Send a close frame; the server closes the connection after its own."""
        self.socket.send(client_frame((1000).to_bytes(2, "big"), CLOSE))


class Passage:
    """All connections, and what they have received."""

    def __init__(self, port: int, clients: int, stay_seconds: float) -> None:
        self._port = port
        self._stay_seconds = stay_seconds
        self._epoll = select.epoll()
        self._epoll.register(sys.stdin.fileno(), select.EPOLLIN)
        self._by_descriptor: dict[int, PassingClient] = {}
        self._clients = [self._come(str(number)) for number in range(1, clients + 1)]
        self._came = 0
        self._milliseconds: list[float] = []
        self._is_asked = False

    def settle(self) -> None:
        """Return once all have subscribed."""
        while not all(client.is_subscribed for client in self._clients):
            self._turn()
        self._milliseconds.clear()

    def pass_by(self) -> None:
        """Receive, replace clients and answer, until standard input ends."""
        began_at = time.monotonic()
        for number in count():
            due_at = began_at + number * self._stay_seconds / len(self._clients)
            is_due = False
            while not is_due:
                self._turn(due_at - time.monotonic())
                if self._is_asked and not self._answer():
                    return
                is_due = time.monotonic() >= due_at
            self._replace(number % len(self._clients), is_polite=number % 2 == 0)

    def _come(self, key: str) -> PassingClient:
        client = PassingClient(self._port, key)
        self._by_descriptor[client.socket.fileno()] = client
        self._epoll.register(client.socket, select.EPOLLIN)
        return client

    def _replace(self, place: int, *, is_polite: bool) -> None:
        former = self._clients[place]
        if is_polite:
            former.leave()
        else:
            self._close(former)
        self._clients[place] = self._come(former.key)
        self._came += 1

    def _close(self, client: PassingClient) -> None:
        self._epoll.unregister(client.socket)
        del self._by_descriptor[client.socket.fileno()]
        client.socket.close()

    def _turn(self, seconds: float = STEP_SECONDS) -> None:
        for descriptor, _ in self._epoll.poll(max(0, min(seconds, STEP_SECONDS))):
            if descriptor == sys.stdin.fileno():
                self._is_asked = True
                continue
            client = self._by_descriptor[descriptor]
            try:
                data = client.socket.recv(BUFFER_BYTES)
            except ConnectionResetError:  # it was sent a change after its close frame
                data = b""
            if data:
                client.received(data, time.time(), self._milliseconds)
            else:
                assert client not in self._clients, "the server closed a connection"
                self._close(client)

    def _answer(self) -> bool:
        self._is_asked = False
        if not sys.stdin.readline():
            return False
        print(json.dumps([self._came, self._milliseconds]), flush=True)
        self._came = 0
        self._milliseconds.clear()
        return True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("clients", type=int)
    parser.add_argument("stay_seconds", type=float)
    arguments = parser.parse_args()
    raise_descriptor_limit()
    passage = Passage(arguments.port, arguments.clients, arguments.stay_seconds)
    passage.settle()
    print(json.dumps([0, []]), flush=True)
    passage.pass_by()


if __name__ == "__main__":
    main()
