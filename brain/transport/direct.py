"""Sending to the socket of a connection itself, without asyncio's transport between."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Callable

# Of Linux's struct tcp_info: bytes that were sent, and of these bytes that were sent again.
SENT_AND_AGAIN = struct.Struct("=QQ")
SENT_OFFSET = 200


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
        opened = transport.get_extra_info("socket")
        self._socket = socket.socket(opened.family, opened.type, opened.proto, opened.fileno())
        self.send_now = self._send_all if is_encrypted(transport) else self._socket.send

    def sent_bytes(self) -> int | None:
        """
        Return how much was sent over the connection; None if the system does not say.

        It is the kernel that counts: to count here would take time for each delivery.
        """
        if sys.platform != "linux":
            return None
        size = SENT_OFFSET + SENT_AND_AGAIN.size
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size)
        except OSError:  # it is closed, or not TCP
            return None
        if len(info) < size:  # before Linux 4.19
            return None
        sent, again = SENT_AND_AGAIN.unpack_from(info, SENT_OFFSET)
        return int(sent - again)

    def end(self) -> None:
        """Let the socket go, which the transport closes."""
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
