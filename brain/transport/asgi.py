"""Connections under any ASGI server: messages one by one, behind a bounded queue."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque

from starlette.types import Receive, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from brain.close_codes import CloseCode
from brain.message.rendering import Framing
from brain.session.session_counts import ABNORMAL, NO_CODE
from brain.session.transport_protocol import Receiver
from brain.transport.event_stream_frames import EVENT_STREAM, EventStreamFraming
from brain.transport.websocket_frames import WEBSOCKET_FRAMING, close_reason, texts_of

HIGH_WATER_BYTES = 64 * 1024

# With which a connection ends: the client has gone, or did not read in time.
ENDS = (WebSocketDisconnect, WebSocketDisconnected, OSError, TimeoutError)


class AsgiTransport(ABC):
    """Takes frames like any transport, and sends what is in them by ASGI's `send`."""

    framing: Framing

    def __init__(self, unread_timeout_seconds: float) -> None:
        self._unread_timeout_seconds = unread_timeout_seconds
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._sent_bytes = 0
        self._is_paused = False
        self._closing: tuple[CloseCode, str] | None = None
        self._wake = asyncio.Event()
        self._receiver: Receiver | None = None
        self._end_code = ABNORMAL

    def write(self, frames: bytes) -> None:
        if self._closing is not None:
            return
        self._unsent.append(frames)
        self._unsent_bytes += len(frames)
        self._wake.set()
        if self._unsent_bytes > HIGH_WATER_BYTES and not self._is_paused:
            self._is_paused = True
            if self._receiver is not None:
                self._receiver.pause_writing()

    def send_now(self, frames: bytes) -> int:
        self.write(frames)
        return len(frames)

    def sent_bytes(self) -> int:
        return self._sent_bytes

    def close(self, code: CloseCode, reason: str) -> None:
        if self._closing is None:
            self._closing = code, reason
            self._wake.set()

    async def run(self, receiver: Receiver) -> None:
        """Serve the connection until either side closes it."""
        self._receiver = receiver
        if self._is_paused:
            receiver.pause_writing()
        tasks = (
            asyncio.create_task(self._receive(receiver), name="receiving"),
            asyncio.create_task(self._send(receiver), name="sending"),
        )
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._receiver = None
            receiver.connection_lost(self._end_code)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in tasks:
            failure = None if task.cancelled() else task.exception()
            if failure is not None and not isinstance(failure, ENDS):
                raise failure

    @abstractmethod
    async def _receive(self, receiver: Receiver) -> None:
        """Give the receiver what the client sends, until it has gone."""

    @abstractmethod
    async def _send_frames(self, frames: bytes) -> None: ...

    @abstractmethod
    async def _send_end(self, code: CloseCode, reason: str) -> None: ...

    async def _send(self, receiver: Receiver) -> None:
        """Send what is written; raise `TimeoutError` if the client does not read it."""
        while True:
            await self._wake.wait()
            while self._unsent:
                frames = self._unsent.popleft()
                try:
                    await self._send_frames(frames)
                except TimeoutError:
                    self._end_code = CloseCode.SLOW_CONSUMER
                    raise
                self._unsent_bytes -= len(frames)
                self._sent_bytes += len(frames)
            if self._closing is not None:
                async with self._time_to_read():
                    await self._send_end(*self._closing)
                return
            self._wake.clear()
            if self._is_paused:
                self._is_paused = False
                receiver.resume_writing()

    def _time_to_read(self) -> asyncio.Timeout:
        return asyncio.timeout(self._unread_timeout_seconds)


class AsgiWebSocket(AsgiTransport):
    """A WebSocket."""

    framing: Framing = WEBSOCKET_FRAMING

    def __init__(self, websocket: WebSocket, unread_timeout_seconds: float) -> None:
        super().__init__(unread_timeout_seconds)
        self._websocket = websocket

    async def _receive(self, receiver: Receiver) -> None:
        while True:
            received = await self._websocket.receive()
            if received["type"] == "websocket.disconnect":
                self._end_code = received.get("code", NO_CODE)
                return
            text = received.get("text")
            receiver.message_received(received["bytes"] if text is None else text)

    async def _send_frames(self, frames: bytes) -> None:
        for text in texts_of(frames):
            async with self._time_to_read():
                await self._websocket.send_text(text)

    async def _send_end(self, code: CloseCode, reason: str) -> None:
        await self._websocket.close(code, close_reason(reason))


class AsgiEventStream(AsgiTransport):
    """A stream of events: the body of an answer, of which the head was sent."""

    framing: EventStreamFraming = EVENT_STREAM

    def __init__(self, receive: Receive, send: Send, unread_timeout_seconds: float) -> None:
        super().__init__(unread_timeout_seconds)
        self._receive_message = receive
        self._send_message = send

    async def _receive(self, receiver: Receiver) -> None:
        while (await self._receive_message())["type"] != "http.disconnect":
            pass

    async def _send_frames(self, frames: bytes) -> None:
        async with self._time_to_read():
            await self._send_message(
                {"type": "http.response.body", "body": frames, "more_body": True}
            )

    async def _send_end(self, code: CloseCode, reason: str) -> None:
        body = self.framing.end(code, reason)
        await self._send_message({"type": "http.response.body", "body": body, "more_body": False})
