"""A WebSocket of brain.v1."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from brain.client.exact_json import parse
from brain.client.link import Frame, LinkLost, refusal, unreachable

OPEN_TIMEOUT_SECONDS = 10.0
CLOSE_TIMEOUT_SECONDS = 1.0
SEND_TIMEOUT_SECONDS = 20.0
# Frames that wait for the program; beyond them the server waits.
MOST_WAITING_FRAMES = 16


class WebSocketLink:
    """Frames over a WebSocket."""

    can_send = True

    def __init__(self, connection: ClientConnection, decimals: bool) -> None:
        self._connection = connection
        self._decimals = decimals

    @classmethod
    async def open(cls, url: str, token: str | None, *, decimals: bool = False) -> WebSocketLink:
        """Connect; raises LinkLost, HandshakeRefused, or ssl.SSLError."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            connection = await connect(
                url,
                additional_headers=headers,
                compression=None,
                open_timeout=OPEN_TIMEOUT_SECONDS,
                close_timeout=CLOSE_TIMEOUT_SECONDS,
                # Brain pings; a slow program must not take its own pause for a dead connection.
                ping_interval=None,
                max_size=None,
                max_queue=MOST_WAITING_FRAMES,
            )
        except InvalidStatus as refused:
            response = refused.response
            text = (response.body or b"").decode(errors="replace")
            raise refusal(response.status_code, text, response.headers.get("Retry-After")) from None
        except ssl.SSLError:
            raise
        except InvalidMessage as error:
            raise LinkLost(
                f"no HTTP response came: {error}",
                advice="If the server speaks TLS, use https:// or wss://",
            ) from error
        except (InvalidHandshake, OSError, TimeoutError) as error:
            raise unreachable(url, error) from error
        return cls(connection, decimals)

    async def receive(self) -> Frame:
        """Return the next frame."""
        try:
            text = await self._connection.recv(decode=True)
        except ConnectionClosed as closed:
            raise lost(closed) from None
        assert isinstance(text, str)
        frame: Frame = parse(text, decimals=self._decimals)
        return frame

    async def send(self, frame: Mapping[str, Any]) -> None:
        """Send a frame."""
        try:
            async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
                await self._connection.send(json.dumps(frame))
        except ConnectionClosed as closed:
            raise lost(closed) from None
        except TimeoutError:
            raise LinkLost("the server does not read") from None

    async def close(self) -> None:
        """Close the connection, within a moment."""
        await self._connection.close()


def lost(closed: ConnectionClosed) -> LinkLost:
    """Return what the end of a connection means."""
    if closed.rcvd is None:
        return LinkLost("the connection broke")
    reason = closed.rcvd.reason or "the server closed the connection"
    return LinkLost(reason, code=closed.rcvd.code)
