"""A snapshot over HTTP, to a client that reads nothing, or hardly anything."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable

from starlette.types import Message

from brain.database.memory import Memory, Reservation
from brain.message.channel_schema import ChannelSchemas
from brain.message.cursor import Cursor
from brain.message.snapshot import PART_ROWS, Snapshot
from brain.web.snapshot import SnapshotResponse, body

SCOPE = {"type": "http", "asgi": {"spec_version": "2.4"}, "method": "GET"}
LONG_SECONDS = 1000.0


def response(pieces: int, read_seconds: float, unread_seconds: float) -> SnapshotResponse:
    """Return the response of a snapshot that nobody else has."""
    snapshot = Snapshot(
        {"orders": ["{}"] * PART_ROWS * pieces},
        Cursor(1, 2),
        frozenset({"orders"}),
        reservation=Reservation(Memory(1000)),
    )
    kept.append(weakref.ref(snapshot.reservation))
    rows = body(snapshot, "orders", ChannelSchemas(), has_number_strings=False)
    return SnapshotResponse(rows, read_seconds, unread_seconds)


kept: list[weakref.ref[object]] = []
"""The memory of the snapshots."""


async def receive() -> Message:
    await asyncio.get_running_loop().create_future()
    return {}


async def respond(response: SnapshotResponse, send: Callable[[Message], Awaitable[None]]) -> None:
    async with asyncio.timeout(20):
        await response(SCOPE, receive, send)


async def test_a_client_that_does_not_read_keeps_no_snapshot() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)
        if len(sent) == 3:  # the start, and a piece
            await asyncio.get_running_loop().create_future()

    await respond(response(3, LONG_SECONDS, 0.05), send)
    assert len(sent) == 3
    assert kept.pop()() is None


async def test_a_client_that_reads_each_piece_in_time_keeps_no_snapshot_for_ever() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)
        await asyncio.sleep(0.01)

    await respond(response(5000, 0.2, LONG_SECONDS), send)
    assert 1 < len(sent) < 100
    assert kept.pop()() is None


async def test_a_client_that_reads_gets_the_whole_snapshot() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await respond(response(50, LONG_SECONDS, LONG_SECONDS), send)
    text = b"".join(message.get("body", b"") for message in sent)
    assert text.count(b"{}") == 50 * PART_ROWS
    assert not sent[-1]["more_body"]
    assert kept.pop()() is None
