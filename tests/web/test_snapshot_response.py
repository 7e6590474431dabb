"""A snapshot over HTTP, to a client that does not read it."""

from __future__ import annotations

import asyncio

from starlette.types import Message

from brain.message.channel_schema import ChannelSchemas
from brain.message.cursor import Cursor
from brain.message.snapshot import PART_ROWS, Snapshot
from brain.web.snapshot import SnapshotResponse, body


async def test_a_client_that_does_not_read_keeps_no_snapshot() -> None:
    snapshot = Snapshot({"orders": ["{}"] * PART_ROWS * 3}, Cursor(1, 2), frozenset({"orders"}))
    response = SnapshotResponse(
        body(snapshot, "orders", ChannelSchemas(), has_number_strings=False), 0.05
    )
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.get_running_loop().create_future()
        return {}

    async def send(message: Message) -> None:
        sent.append(message)
        if len(sent) == 3:  # the start, and a piece
            await asyncio.get_running_loop().create_future()

    scope = {"type": "http", "asgi": {"spec_version": "2.4"}, "method": "GET"}
    async with asyncio.timeout(20):
        await response(scope, receive, send)

    assert len(sent) == 3
