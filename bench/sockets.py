"""WebSockets without a library: raw sockets, a handshake by hand, frames told apart by length."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterable, Iterator
from typing import NamedTuple

TEXT = 0x1
CLOSE = 0x8

# The longest frame that one `recv` takes in whole, and more than any burst.
BUFFER_BYTES = 2**20

# Descriptors that a process needs beside those of its clients.
SPARE_DESCRIPTORS = 100

REQUEST = """\
GET {path} HTTP/1.1\r
Host: localhost\r
Upgrade: websocket\r
Connection: Upgrade\r
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r
Sec-WebSocket-Version: 13\r
{more}\r
"""
COMPRESSION = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"

# The answer to the key above, which is the example of RFC 6455.
ANSWER = b"""\
HTTP/1.1 101 Switching Protocols\r
Upgrade: websocket\r
Connection: Upgrade\r
Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r
\r
"""


class Frame(NamedTuple):
    opcode: int
    payload: bytes


def upgrade_request(path: str, *, offers_compression: bool = False) -> bytes:
    return REQUEST.format(path=path, more=COMPRESSION if offers_compression else "").encode()


def text_frame(payload: bytes) -> bytes:
    """Return the frame in which a server sends a text of 126 to 65,535 bytes."""
    assert 126 <= len(payload) < 2**16
    return bytes((0x80 | TEXT, 126)) + len(payload).to_bytes(2, "big") + payload


def split_frames(received: bytes) -> tuple[list[Frame], bytes]:
    """Return the frames of a server that are complete, and the bytes that are left."""
    frames: list[Frame] = []
    position = 0
    while len(received) - position >= 2:
        begin, length = position + 2, received[position + 1]
        if length >= 126:
            begin += 2 if length == 126 else 8
            length = int.from_bytes(received[position + 2 : begin], "big")
        if begin + length > len(received):
            break
        frames.append(Frame(received[position] & 0x0F, received[begin : begin + length]))
        position = begin + length
    return frames, received[position:]


def answered(received: bytes) -> bytes | None:
    """Return what follows the answer to a handshake; None while it is not complete."""
    head, end, rest = received.partition(b"\r\n\r\n")
    if not end:
        return None
    if not head.startswith(b"HTTP/1.1 101 "):
        raise ConnectionRefusedError(head.partition(b"\r\n")[0].decode())
    return rest


def connected_sockets(
    port: int, request: bytes, clients: int, *, is_greeted: bool, together: int = 100
) -> Iterator[socket.socket]:
    """
    Yield blocking sockets whose handshake is over, and whose greeting is taken if there is one.

    So many `together` wait for their answers at a time: fewer than a server can queue.
    """
    for start in range(0, clients, together):
        batch = [
            socket.create_connection(("127.0.0.1", port), timeout=60)
            for _ in range(min(together, clients - start))
        ]
        for one in batch:
            one.sendall(request)
        for one in batch:
            take_greeting(one, is_greeted=is_greeted)
            yield one


def take_greeting(client: socket.socket, *, is_greeted: bool) -> None:
    """Receive the answer to the handshake, the message after it if there is one, and no more."""
    received = b""
    while True:
        part = client.recv(BUFFER_BYTES)
        if not part:
            raise ConnectionError("the server closed the connection in the handshake")
        received += part
        rest = answered(received)
        if rest is not None and len(split_frames(rest)[0]) >= is_greeted:
            break
    frames, left = split_frames(rest)
    assert len(frames) == is_greeted and not left, rest


def raise_descriptor_limit() -> int:
    """Let this process, and those that it starts, open as many files as may be; return how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def fitting(wanted: Iterable[int]) -> list[int]:
    """Return the numbers of clients that one process may have, larger ones cut down to fit."""
    most = raise_descriptor_limit() - SPARE_DESCRIPTORS
    return list(dict.fromkeys(min(clients, most) for clients in wanted))
