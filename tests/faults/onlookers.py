"""
Many clients in a process of their own, which does little else and so can time what they receive.

    python -m tests.faults.onlookers PORT CLIENTS [--path PATH] [--source ADDRESS]
                                     [--receive-buffer BYTES]

It prints `{"clients": n}` once all are connected. Then each line that it reads is a command, and is
answered by a line of JSON: `report` by what was received, and `delays` by how long it took; `stop`,
after which no client reads anything; `return`, at which each reads what had reached it, and comes
back with its last cursor. The program ends with its input.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import sys
from collections import Counter, defaultdict
from time import monotonic_ns
from urllib.parse import quote

from tests.raw_websocket import (
    OPEN_SECONDS,
    PING,
    PONG,
    RECEIVE_BYTES,
    TEXT,
    client_frame,
    handshake,
    payload_at,
    receive_handshake,
)

BLOCK = 25
"""Delays are counted for so many messages at a time."""
NOTE, RESET = b'{"type":"note",', b'{"type":"reset",'
LONGEST_BEGINNING = 200
"""Number and time come before the padding."""
NUMBER, SENT, CURSOR = b'"number":"', b'"sent":"', b'"cursor":"'

Delays = defaultdict[int, Counter[int]]
"""By block of numbers: how many messages took so many tenths of a millisecond."""


class Onlooker:
    """One client: what it has received, and the connection over which it receives more."""

    def __init__(self, delays: Delays) -> None:
        self._delays = delays
        self.cursor = ""
        """The place after what it has received, if it asked for cursors."""
        self._rest = b""
        """The beginning of a frame that is not whole yet."""
        self.last = 0
        """The number of the newest message; 0 before the first."""
        self.lost = self.doubled = self.resets = 0
        self.is_connected = False

    def connect(self, options: argparse.Namespace) -> None:
        """Do the handshake, and come back with the cursor if there is one."""
        self.socket = socket.socket()
        if options.receive_buffer:
            # Before it connects: the window is agreed on there.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options.receive_buffer)
        self.socket.settimeout(OPEN_SECONDS)
        self.socket.bind((options.source, 0))
        self.socket.connect(("127.0.0.1", options.port))
        self.socket.sendall(handshake(options.path + quote(self.cursor, safe="")))
        rest = receive_handshake(self.socket)
        self.socket.setblocking(False)
        self.is_connected = True
        self._rest = b""
        self._take(rest)

    def receive(self) -> bool:
        """Hear what has arrived; return whether it was anything."""
        try:
            data = self.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        self.is_connected = bool(data)
        self._take(self._rest + data)
        return bool(data)

    def leave(self) -> None:
        self.is_connected = False
        self.socket.close()

    def _take(self, data: bytes) -> None:
        """Take in the frames of a server, without copying the payloads."""
        now, place, newest = monotonic_ns() // 1000, 0, 0
        while (bounds := payload_at(data, place)) is not None:
            start, end = bounds
            if data[place] & 0x0F == TEXT:
                newest = start
            if data.startswith(NOTE, start):
                self._note(data[start : start + LONGEST_BEGINNING], now)
            else:
                self._take_other(data[place] & 0x0F, data[start:end])
            place = end
        self._rest = data[place:]
        if (at := data.rfind(CURSOR, newest, place)) >= 0:
            self.cursor = data[at + len(CURSOR) : data.index(b'"', at + len(CURSOR))].decode()

    def _take_other(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.socket.send(client_frame(payload, PONG))
        elif payload.startswith(RESET):
            self.resets += 1

    def _note(self, text: bytes, now: int) -> None:
        """Note the number and the delay of a message of which this is the beginning."""
        number = int(value(text, NUMBER))
        self._delays[number // BLOCK][(now - int(value(text, SENT))) // 100] += 1
        if number <= self.last:
            self.doubled += 1
            return
        if self.last:  # where the first one finds it is where it begins
            self.lost += number - self.last - 1
        self.last = number


def value(text: bytes, key: bytes) -> bytes:
    start = text.index(key) + len(key)
    return text[start : text.index(b'"', start)]


class Onlookers:
    """All of them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._delays: Delays = defaultdict(Counter)
        self._clients = [Onlooker(self._delays) for _ in range(options.clients)]
        self._poll = select.epoll()
        self._reading: dict[int, Onlooker] = {}

    def watch(self) -> None:
        """Receive, and do what the input asks for, to the end of the input."""
        self._come()
        self._poll.register(sys.stdin.fileno(), select.EPOLLIN)
        while True:
            for place, _ in self._poll.poll():
                if place == sys.stdin.fileno():
                    commands = os.read(place, 1000).decode()
                    if not commands:
                        return
                    for command in commands.split():
                        self._obey(command)
                elif place in self._reading:
                    self._hear(self._reading[place])

    def _obey(self, command: str) -> None:
        match command:
            case "stop":
                for place in self._reading:
                    self._poll.unregister(place)
                self._reading.clear()
                print_line({})
            case "return":
                for client in self._clients:
                    while client.is_connected and client.receive():
                        pass
                    client.leave()
                self._come()
            case "report":
                print_line(self._report())
            case "delays":
                print_line(self._delays)

    def _come(self) -> None:
        for client in self._clients:
            client.connect(self._options)
            self._reading[client.socket.fileno()] = client
            self._poll.register(client.socket.fileno(), select.EPOLLIN)
        print_line({"clients": len(self._clients)})

    def _hear(self, client: Onlooker) -> None:
        client.receive()
        if not client.is_connected:
            del self._reading[client.socket.fileno()]
            client.leave()

    def _report(self) -> dict[str, int]:
        clients = self._clients
        return {
            "gone": sum(not client.is_connected for client in clients),
            "lost": sum(client.lost for client in clients),
            "doubled": sum(client.doubled for client in clients),
            "resets": sum(client.resets for client in clients),
            "last": min(client.last for client in clients),
        }


def print_line(answer: object) -> None:
    print(json.dumps(answer), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.onlookers", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("port", type=int)
    parser.add_argument("clients", type=int)
    parser.add_argument("--path", default="/ws")
    parser.add_argument("--source", default="127.0.0.1", help="address to connect from")
    parser.add_argument("--receive-buffer", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    Onlookers(arguments()).watch()
