"""
Many clients in a process of their own, which does little else and so can time their messages.

    python -m tests.faults.onlookers PORT CLIENTS [--path PATH] [--source ADDRESS]
                                     [--receive-buffer BYTES]

It prints `{"clients": n}` once all are connected. Then it reads commands, one per line, and answers
each with a line of JSON:

    report    how many messages were received, lost and doubled
    delays    how long the messages took
    stop      no client reads any more
    return    each client reads what has reached it, and reconnects with its last cursor

The program ends with its input.
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
"""Delays are counted per block of this many messages."""
NOTE, RESET = b'{"type":"note",', b'{"type":"reset",'
LONGEST_BEGINNING = 200
"""A message's number and time are within these bytes, before the padding."""
NUMBER, SENT, CURSOR = b'"number": "', b'"sent": "', b'"cursor":"'

Delays = defaultdict[int, Counter[int]]
"""By block of numbers and tenths of a millisecond: how many messages had this delay."""


class Onlooker:
    """One client: what it has received, and the connection over which it receives more."""

    def __init__(self, delays: Delays) -> None:
        self._delays = delays
        self.cursor = ""
        """That of the newest message, if it connects with cursors."""
        self._rest = b""
        """The beginning of an incomplete frame."""
        self.last = 0
        """The number of the newest message; 0 before the first."""
        self.lost = self.doubled = self.resets = 0
        self.is_connected = False

    def connect(self, options: argparse.Namespace) -> None:
        """Connect, with the last cursor if there is one."""
        self.socket = socket.socket()
        if options.receive_buffer:
            # Before it connects, which negotiates the window.
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
        """Receive what has arrived; return True if there was anything."""
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
        """Handle the frames of a server, without copying the payloads."""
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
        """Note the number and the delay of a message, given its beginning."""
        number = int(value(text, NUMBER))
        self._delays[number // BLOCK][(now - int(value(text, SENT))) // 100] += 1
        if number <= self.last:
            self.doubled += 1
            return
        if self.last:  # the first message may have any number
            self.lost += number - self.last - 1
        self.last = number


def value(text: bytes, key: bytes) -> bytes:
    start = text.index(key) + len(key)
    return text[start : text.index(b'"', start)]


class Onlookers:
    """All clients of the process."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._delays: Delays = defaultdict(Counter)
        self._clients = [Onlooker(self._delays) for _ in range(options.clients)]
        self._poll = select.epoll()
        self._reading: dict[int, Onlooker] = {}

    def watch(self) -> None:
        """Receive messages, and obey the commands of the input until it ends."""
        self._connect()
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
                    self._receive(self._reading[place])

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
                self._connect()
            case "report":
                print_line(self._report())
            case "delays":
                print_line(self._delays)

    def _connect(self) -> None:
        for client in self._clients:
            client.connect(self._options)
            self._reading[client.socket.fileno()] = client
            self._poll.register(client.socket.fileno(), select.EPOLLIN)
        print_line({"clients": len(self._clients)})

    def _receive(self, client: Onlooker) -> None:
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
