"""The connection of a client under any ASGI server: messages one by one, behind a bounded queue."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from brain.message.frames import texts_of
from brain.websocket.outlet import Hearer

HIGH_WATER_BYTES = 64 * 1024


class PlainOutlet:
    """Takes frames like a transport, and sends what is in them with the means of ASGI."""

    def __init__(self, websocket: WebSocket, unread_seconds: float) -> None:
        self._websocket = websocket
        self._unread_seconds = unread_seconds
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._is_paused = False
        self._goodbye: tuple[int, str] | None = None
        self._filled = asyncio.Event()
        self._hearer: Hearer | None = None

    def write(self, frames: bytes) -> None:
        if self._goodbye is not None:
            return
        self._unsent.append(frames)
        self._unsent_bytes += len(frames)
        self._filled.set()
        if self._unsent_bytes > HIGH_WATER_BYTES and not self._is_paused:
            self._is_paused = True
            if self._hearer is not None:
                self._hearer.pause()

    def send_now(self, frames: bytes) -> int:
        self.write(frames)
        return len(frames)

    def close(self, code: int, reason: str) -> None:
        if self._goodbye is None:
            self._goodbye = code, reason
            self._filled.set()

    async def carry(self, hearer: Hearer) -> None:
        """Carry a conversation until either side has enough."""
        self._hearer = hearer
        if self._is_paused:
            hearer.pause()
        hearing = asyncio.create_task(self._hear(hearer), name="hearing")
        sending = asyncio.create_task(self._send(hearer), name="sending")
        try:
            await asyncio.wait((hearing, sending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._hearer = None
            hearer.leave()
            for task in (hearing, sending):
                task.cancel()
                # A client that does not read has had its time.
                with suppress(
                    asyncio.CancelledError, WebSocketDisconnect, WebSocketDisconnected, TimeoutError
                ):
                    await task

    async def _hear(self, hearer: Hearer) -> None:
        while True:
            received = await self._websocket.receive()
            if received["type"] == "websocket.disconnect":
                return
            text = received.get("text")
            hearer.hear(received["bytes"] if text is None else text)

    async def _send(self, hearer: Hearer) -> None:
        """Send what is written; raise `TimeoutError` if the client does not read it."""
        while True:
            await self._filled.wait()
            while self._unsent:
                frames = self._unsent.popleft()
                for text in texts_of(frames):
                    async with asyncio.timeout(self._unread_seconds):
                        await self._websocket.send_text(text)
                self._unsent_bytes -= len(frames)
            if self._goodbye is not None:
                await self._websocket.close(*self._goodbye)
                return
            self._filled.clear()
            if self._is_paused:
                self._is_paused = False
                hearer.drain()
