"""
A client of brain.v1 that keeps the rows of a subscription, as docs/protocol.md says.

75 lines of code with either of its two transports, without the means to cut it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from httpx2 import AsyncClient, HTTPError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

Frame = dict[str, Any]
RETRY_SECONDS = 0.1


class Copy:
    """The rows of a subscription by their keys."""

    def __init__(self, parse: Callable[[str], Frame] = json.loads) -> None:
        self.parse = parse
        self.rows: dict[str, Any] = {}
        self.is_whole = False
        """No row is missing: this is not within a snapshot."""
        self.parts: dict[str, list[Frame]] = {}
        """The frames of each transaction that is not complete."""

    def clear(self) -> None:
        self.rows.clear()
        self.parts.clear()
        self.is_whole = False

    def take(self, frame: Frame) -> None:
        match frame.get("op"):
            case "reset":
                self.clear()
            case "snapshot":
                self.rows |= {json.dumps(each["key"]): each["row"] for each in frame["rows"]}
            case "snapshot-end":
                self.is_whole = True
            case "commit":
                self.apply(frame["txid"])
            case "insert" | "update" | "delete" | "leave" | "truncate" | "message":
                self.parts.setdefault(frame["txid"], []).append(frame)
                if frame.get("last"):
                    self.apply(frame["txid"])

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
    def __init__(self, copy: Copy, request: Mapping[str, Any], where: str, token: str) -> None:
        self._copy = copy
        self._request = {"type": "subscribe", "id": "s", **request}
        self._where = where
        self._headers = {"authorization": f"Bearer {token}"}
        self._cursor: str | None = None
        self._is_live = False
        self._connection: ClientConnection | None = None
        self.problem: Exception | None = None

    async def follow(self, next_address: Callable[[], str]) -> None:
        while True:
            try:
                url, headers = f"ws://{next_address()}/ws/v1", self._headers
                async with connect(
                    url, proxy=None, max_size=None, additional_headers=headers
                ) as self._connection:
                    await self._follow(self._connection)
            except (OSError, WebSocketException) as error:
                self.problem = error
            await asyncio.sleep(RETRY_SECONDS)

    def cut(self, *, forgets: bool = False) -> None:
        """Cut the connection; one that forgets begins anew."""
        if forgets:
            self._cursor = None
        if self._connection is not None:
            self._connection.transport.abort()

    async def _follow(self, connection: ClientConnection) -> None:
        self._is_live = False
        self._copy.parts.clear()
        after = {} if self._cursor is None else {"after": self._cursor}
        request = json.dumps(self._request | after)
        where = f',"where":{self._where}' if self._where else ""
        await connection.send(f"{request[:-1]}{where}}}")
        async for text in connection:
            frame = self._copy.parse(str(text))
            match frame.get("op") or frame["type"]:
                case "subscribed" if self._cursor is None:
                    self._copy.clear()
                case "error" | "unsubscribed":
                    return
                case "live":
                    self._is_live = True
            self._copy.take(frame)
            if not self._copy.is_whole:
                self._cursor = None
            elif "cursor" in frame and (self._is_live or "sub" in frame) and not self._copy.parts:
                self._cursor = frame["cursor"]


class SseClient:
    def __init__(self, copy: Copy, request: Mapping[str, Any], where: str, token: str) -> None:
        self._copy = copy
        parameters = {"where": where, **request} if where else request
        self._parameters = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in parameters.items()
        }
        self._headers = {"authorization": f"Bearer {token}"}
        self._last_id: str | None = None
        self._lifetime: asyncio.Timeout | None = None
        self.problem: Exception | None = None

    async def follow(self, next_address: Callable[[], str]) -> None:
        async with AsyncClient(trust_env=False, timeout=None) as http:
            while True:
                last = {} if self._last_id is None else {"last-event-id": self._last_id}
                url, headers = f"http://{next_address()}/sse", self._headers | last
                try:
                    async with (
                        asyncio.timeout(None) as self._lifetime,
                        http.stream(
                            "GET", url, params=self._parameters, headers=headers
                        ) as response,
                    ):
                        response.raise_for_status()
                        unread = b""
                        async for chunk in response.aiter_bytes():
                            *events, unread = (unread + chunk).split(b"\n\n")
                            for event in events:
                                self._take(event.decode())
                except (TimeoutError, HTTPError) as error:
                    self.problem = error
                self._lifetime = None
                await asyncio.sleep(RETRY_SECONDS)

    def cut(self, *, forgets: bool = False) -> None:
        """Cut the stream; a client that forgets begins anew."""
        if forgets:
            self._last_id = None
        lifetime, self._lifetime = self._lifetime, None
        if lifetime is not None:
            lifetime.reschedule(0)

    def _take(self, event: str) -> None:
        fields = {line.partition(": ")[0]: line.partition(": ")[2] for line in event.split("\n")}
        if "data" in fields:
            frame = self._copy.parse(fields["data"])
            if frame.get("type") == "subscribed" and self._last_id is None:
                self._copy.clear()
            self._copy.take(frame)
            self._last_id = fields.get("id", self._last_id)
