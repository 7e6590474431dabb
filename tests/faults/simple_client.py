"""Two clients of brain.v1 that keep the rows of a subscription, as docs/protocol.md says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

Frame = dict[str, Any]
RETRY_SECONDS = 0.1


class Copy:
    """The rows of a subscription by their keys, and the place in the log up to which they hold."""

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}
        self.cursor: str | None = None
        self.is_whole = False
        """It lacks no row: it is not within a snapshot."""
        self.is_live = False
        self.parts: dict[str, list[Frame]] = {}
        """The frames of each transaction that is not complete."""

    def begin(self, after: str | None) -> None:
        """Begin with what follows a cursor, or with a snapshot."""
        self.cursor, self.is_whole, self.is_live = after, after is not None, False
        self.parts.clear()
        if after is None:
            self.rows.clear()

    def take(self, frame: Frame) -> None:
        match frame.get("op"):
            case "reset":
                self.begin(after=None)
            case "snapshot":
                self.rows |= {json.dumps(each["key"]): each["row"] for each in frame["rows"]}
            case "snapshot-end":
                self.is_whole = True
            case "live":
                self.is_live = True
            case "commit":
                self.apply(frame["txid"])
            case str():
                self.parts.setdefault(frame["txid"], []).append(frame)
                if frame.get("last"):
                    self.apply(frame["txid"])
        is_own = self.is_live or "sub" in frame
        if "cursor" in frame and is_own and self.is_whole and not self.parts:
            self.cursor = frame["cursor"]

    def apply(self, txid: str) -> None:
        """Apply a transaction as a whole."""
        for frame in self.parts.pop(txid, ()):
            match frame["op"]:
                case "insert" | "update":
                    self.rows[json.dumps(frame["key"])] = frame["row"]
                case "delete" | "leave":
                    self.rows.pop(json.dumps(frame["key"]), None)
                case "truncate":
                    self.rows.clear()


class WebSocketClient:
    def __init__(self, copy: Copy, subscription: Frame, token: str) -> None:
        self.copy = copy
        self.connection: ClientConnection | None = None
        self._subscription = {"type": "subscribe", "id": "s", "snapshot": True, **subscription}
        self._headers = {"authorization": f"Bearer {token}"}

    async def follow(self, next_url: Callable[[], str], parse: Callable[[str], Frame]) -> None:
        while True:
            try:
                headers = self._headers
                async with connect(
                    next_url(), proxy=None, max_size=None, additional_headers=headers
                ) as self.connection:
                    await self._follow(self.connection, parse)
            except (OSError, WebSocketException):
                pass
            await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self, connection: ClientConnection, parse: Callable[[str], Frame]) -> None:
        after = await self._subscribe(connection)
        async for text in connection:
            frame = parse(str(text))
            match frame.get("op") or frame["type"]:
                case "subscribed" if "replaces" not in frame:
                    self.copy.begin(after)
                case "error" | "unsubscribed":
                    return
            self.copy.take(frame)
            if frame.get("op") == "reset":
                after = await self._subscribe(connection)

    async def _subscribe(self, connection: ClientConnection) -> str | None:
        """Ask for the subscription; return the cursor after which it goes on."""
        cursor = self.copy.cursor
        after = {} if cursor is None else {"after": cursor}
        await connection.send(json.dumps(self._subscription | after))
        return cursor
