"""Everything said over one WebSocket."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from brain.errors import ConnectionEnded
from brain.hub.hub import Hub
from brain.hub.subscriber import Subscriber
from brain.message.wire_format import WireFormat

# How many events a client is handed before others get their turn.
HANDFUL = 100


async def converse(
    websocket: WebSocket, hub: Hub, wire_format: WireFormat, channels: frozenset[str]
) -> None:
    """
    Greet a client, then tell it what happens and answer it, until either side has enough.

    It is subscribed before it is greeted: what happens once it has seen the greeting, it hears.
    """
    filled = asyncio.Event()
    await websocket.accept()
    with hub.subscribed(wire_format, channels, filled.set) as subscriber:
        try:
            await websocket.send_text(wire_format.greet(datetime.now(UTC)))
            async with asyncio.TaskGroup() as tasks:
                speaking = tasks.create_task(speak(websocket, hub, subscriber, filled))
                await hear(websocket, wire_format)
                speaking.cancel()
        except* ConnectionEnded as ended:
            (reason,) = ended.exceptions
            assert isinstance(reason, ConnectionEnded)
            await websocket.close(reason.close_code, str(reason))
        except* (WebSocketDisconnect, WebSocketDisconnected):
            pass  # the client went away while it was spoken to


async def speak(
    websocket: WebSocket, hub: Hub, subscriber: Subscriber, filled: asyncio.Event
) -> None:
    """Tell the client what the hub has for it, at the speed at which it reads."""
    while True:
        filled.clear()
        for text in hub.take(subscriber, HANDFUL):
            await websocket.send_text(text)
        if not hub.is_behind(subscriber):
            await filled.wait()


async def hear(websocket: WebSocket, wire_format: WireFormat) -> None:
    """Answer what the client says, until it leaves."""
    while True:
        received = await websocket.receive()
        if received["type"] == "websocket.disconnect":
            return
        text = received.get("text")
        if text is None:
            await websocket.close(1003, "text messages only")
            return
        await websocket.send_text(wire_format.answer(text, datetime.now(UTC)))
