"""Which messages of PostgreSQL reach the driver."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from brain.database.message_limit import MOST_BYTES, MessageLimit

READY = b"Z\0\0\0\5I"


class Driver(asyncio.Protocol):
    def __init__(self) -> None:
        self.received = bytearray()
        self.called: list[str] = []

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> None:
        self.called.append("eof_received")

    def connection_lost(self, exc: Exception | None) -> None:
        self.called.append("connection_lost")

    def pause_writing(self) -> None:
        self.called.append("pause_writing")

    def resume_writing(self) -> None:
        self.called.append("resume_writing")


class Transport:
    def __init__(self) -> None:
        self.protocol: Any = None
        self.is_aborted = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def abort(self) -> None:
        self.is_aborted = True


def limited() -> tuple[MessageLimit, Driver, Transport]:
    driver, transport = Driver(), Transport()
    connection: Any = SimpleNamespace(_protocol=driver, _transport=transport)
    return MessageLimit(connection), driver, transport


def message(kind: bytes, text_bytes: int) -> bytes:
    return kind + (text_bytes + 4).to_bytes(4) + bytes(text_bytes)


@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 4, 5, 6, 7, 100, 4096, 10**6])
def test_the_driver_gets_every_byte_of_what_is_not_too_large(chunk_bytes: int) -> None:
    limit, driver, transport = limited()
    rows = message(b"D", 0) + message(b"D", 2 * MOST_BYTES) + message(b"D", 7)
    sent = (rows + message(b"N", MOST_BYTES // 2) + message(b"S", 9) + READY) * 4

    for start in range(0, len(sent), chunk_bytes):
        limit.data_received(sent[start : start + chunk_bytes])

    assert driver.received == sent
    assert not transport.is_aborted and not limit.is_exceeded


@pytest.mark.parametrize("chunk_bytes", [1, 4, 5, 100, 10**6])
@pytest.mark.parametrize("kind", [b"A", b"E", b"N", b"S"])
def test_what_is_too_large_is_refused_once_it_is_announced(kind: bytes, chunk_bytes: int) -> None:
    limit, driver, transport = limited()
    before = message(b"D", 9) + READY
    sent = before + message(kind, MOST_BYTES)[:5]

    for start in range(0, len(sent), chunk_bytes):
        limit.data_received(sent[start : start + chunk_bytes])
    limit.data_received(bytes(100))

    assert transport.is_aborted and limit.is_exceeded
    assert len(driver.received) <= len(before) + 4


def test_the_notices_of_one_query_count_together() -> None:
    limit, _, transport = limited()
    notice = message(b"N", MOST_BYTES // 4)

    limit.data_received(notice * 3 + READY + notice * 3)
    assert not transport.is_aborted
    limit.data_received(notice)
    assert transport.is_aborted


def test_the_driver_hears_of_all_that_happens_to_the_connection() -> None:
    limit, driver, transport = limited()
    assert transport.protocol is limit

    limit.eof_received()
    limit.pause_writing()
    limit.resume_writing()
    limit.connection_lost(None)

    assert driver.called == ["eof_received", "pause_writing", "resume_writing", "connection_lost"]
