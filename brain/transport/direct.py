"""Sending to the socket of a connection itself, without asyncio's transport between."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable


class DirectSending:
    """
    The two ways to send frames over a connection, as `Outgoing` has them.

    What `send_now` sends must not overtake what the transport buffers: so it pauses writing as soon
    as the kernel takes no more.
    """

    __slots__ = ("_socket", "send_now", "write")

    send_now: Callable[[bytes], int]
    """The socket's own method; under TLS the transport encrypts, and takes everything."""
    write: Callable[[bytes], None]
    """The transport's own method, which saves a call each time."""

    def __init__(self, transport: asyncio.Transport) -> None:
        pause_at_once(transport)
        self.write = transport.write
        self._socket: socket.socket | None = None
        if is_encrypted(transport):
            self.send_now = self._send_all
            return
        opened = transport.get_extra_info("socket")
        self._socket = socket.socket(opened.family, opened.type, opened.proto, opened.fileno())
        self.send_now = self._socket.send

    def end(self) -> None:
        """Let the socket go, which the transport closes."""
        if self._socket is not None:
            self._socket.detach()

    def _send_all(self, frames: bytes) -> int:
        self.write(frames)
        return len(frames)


def pause_at_once(transport: asyncio.Transport) -> None:
    """Have a transport pause writing as soon as it buffers anything."""
    # asyncio pauses above the limit; under TLS from it on, with 0 also when it buffers nothing.
    transport.set_write_buffer_limits(high=1 if is_encrypted(transport) else 0, low=0)


def is_encrypted(transport: asyncio.BaseTransport) -> bool:
    return transport.get_extra_info("sslcontext") is not None
