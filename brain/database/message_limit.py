"""Bounds what code of others can have PostgreSQL send beside rows."""

from __future__ import annotations

import asyncio
from struct import Struct

import asyncpg

MOST_BYTES = 64 * 1024
# Each message is a byte for its kind, and its length without that byte.
HEADER = Struct("!BI")
# A notification, an error, a notice, and a setting that has changed.
BOUNDED = frozenset(b"AENS")
DATA_ROW = ord("D")
READY_FOR_QUERY = ord("Z")


class MessageTooLarge(Exception):
    """PostgreSQL was about to send more text beside rows than Brain takes."""


class MessageLimit(asyncio.Protocol):
    """
    Stands before the driver's protocol, and aborts the connection if messages are too large.

    The driver would hold up all other clients while it parses such a message. Messages without rows
    may have 64 KiB, all of a query together.
    """

    def __init__(self, connection: asyncpg.Connection) -> None:
        """To be called between two messages of the server."""
        self.is_exceeded = False
        self._protocol: asyncio.Protocol = connection._protocol  # type: ignore[attr-defined]
        self._transport: asyncio.Transport = connection._transport  # type: ignore[attr-defined]
        self._begun = b""
        """The beginning of a message, until its length has come."""
        self._left_bytes = 0
        """How much is still to come of the message before the next one."""
        self._taken_bytes = 0
        """What the query has sent beside rows."""
        self._transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        if self.is_exceeded:
            return
        if len(data) <= self._left_bytes:
            self._left_bytes -= len(data)
        elif self._exceeds(data):
            self.is_exceeded = True
            self._transport.abort()
            return
        self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def _exceeds(self, data: bytes) -> bool:
        data = self._begun + data
        begins_at = self._left_bytes
        last = len(data) - HEADER.size
        unpack_from = HEADER.unpack_from  # there may be many rows
        while begins_at <= last:
            kind, length = unpack_from(data, begins_at)
            begins_at += 1 + length
            if kind == DATA_ROW:
                continue
            if kind == READY_FOR_QUERY:
                self._taken_bytes = 0
            elif kind in BOUNDED:
                self._taken_bytes += length
                if self._taken_bytes > MOST_BYTES:
                    return True
        self._begun = data[begins_at:]
        self._left_bytes = max(0, begins_at - len(data))
        return False
