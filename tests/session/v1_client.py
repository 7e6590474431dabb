"""A client of brain.v1 for tests, which holds every frame to the models."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pydantic import TypeAdapter
from websockets.asyncio.client import ClientConnection, connect

from brain.message.v1_frames import AnyServerFrame

PATIENCE_SECONDS = 20.0
SERVER_FRAME: TypeAdapter[AnyServerFrame] = TypeAdapter(AnyServerFrame)


class V1Client:
    """A connection to `/ws/v1`."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self.hello: dict[str, Any] = {}
        self._ids = 0

    async def receive(self) -> dict[str, Any]:
        """Return the next frame that is no heartbeat."""
        while (frame := await self.receive_any()).get("type") == "ping":
            pass
        return frame

    async def receive_any(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            text = await self.websocket.recv()
        SERVER_FRAME.validate_json(text)
        frame: dict[str, Any] = json.loads(text)
        return frame

    async def frames(self, count: int) -> list[dict[str, Any]]:
        return [await self.receive() for _ in range(count)]

    async def send(self, type: str, **frame: Any) -> str:
        """Send a frame with an id, and return the id."""
        self._ids += 1
        id = f"request {self._ids}"
        await self.websocket.send(json.dumps({"type": type, "id": id, **frame}))
        return id

    async def ask(self, type: str, **frame: Any) -> dict[str, Any]:
        """Send a frame, and return the next frame, which has to be the answer."""
        id = await self.send(type, **frame)
        answer = await self.receive()
        assert answer.pop("id") == id, answer
        return answer

    async def ask_past(self, type: str, **frame: Any) -> dict[str, Any]:
        """Send a frame, and return its answer, whatever comes before it."""
        id = await self.send(type, **frame)
        while (answer := await self.receive()).get("id") != id:
            pass
        return answer

    async def subscribe(self, channel: str, **options: Any) -> dict[str, Any]:
        answer = await self.ask("subscribe", channel=channel, **options)
        assert answer["type"] == "subscribed", answer
        return answer

    async def until_pong(self) -> list[dict[str, Any]]:
        """Return what comes before the answer to a ping."""
        id = await self.send("ping")
        frames = []
        while (frame := await self.receive()).get("id") != id:
            frames.append(frame)
        return frames


@asynccontextmanager
async def v1_client(port: int, token: str | None = None, **options: Any) -> AsyncIterator[V1Client]:
    query = "" if token is None else f"?token={token}"
    options = {"proxy": None, "max_size": None} | options
    async with connect(f"ws://127.0.0.1:{port}/ws/v1{query}", **options) as websocket:
        client = V1Client(websocket)
        client.hello = await client.receive()
        assert client.hello["type"] == "hello"
        yield client
