"""What a program asks of Brain: over one connection of their own, so that no loop holds them up."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Mapping
from typing import Any

from pydantic_core import to_jsonable_python

from brain.client.backoff import Backoff
from brain.client.connection import Connection
from brain.client.connector import Connector, Opened
from brain.client.errors import BrainClientError, ConnectionLost, NeedsWebSocket, Refused
from brain.client.link import Frame, HandshakeRefused, LinkLost
from brain.client.status import StatusBoard


class Request:
    """A frame that waits for its answer."""

    def __init__(self, frame: Frame, is_repeatable: bool) -> None:
        self.frame = frame
        self.is_repeatable = is_repeatable
        """True if it may be sent again where it is not known whether it was carried out."""
        self.is_sent = False
        self.answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()

    def fail(self, error: BrainClientError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def lose(self) -> None:
        """Note that the connection broke on which it was sent."""
        if self.is_sent and not self.is_repeatable:
            problem = "the connection broke before the answer came"
            advice = "It may have been carried out: ask again only if twice does no harm"
            self.fail(ConnectionLost(problem, advice=advice))
        self.is_sent = False


class Requests:
    """Sends frames, and returns what answers them; waits while there is no connection."""

    def __init__(self, connector: Connector, board: StatusBoard) -> None:
        self._connector = connector
        self._board = board
        self._waiting: dict[str, Request] = {}
        self._ids = map(str, itertools.count(1))
        self._presence: Frame | None = None
        """Set anew on every connection: Brain forgets it with the last one of the user."""
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None

    async def ask(self, frame: Mapping[str, Any], *, is_repeatable: bool) -> Frame:
        """
        Return the answer to a frame.

        Raises Refused or Closed; ConnectionLost if it is not repeatable, and may have been carried
        out; NeedsWebSocket.
        """
        id = next(self._ids)
        request = Request({"id": id, **frame}, is_repeatable)
        self._waiting[id] = request
        try:
            await self._send(request)
            return await request.answer
        finally:
            del self._waiting[id]

    async def set_presence(self, status: str) -> None:
        """Set the presence of the user, and keep it across connections."""
        frame = {"type": "presence", "status": status}
        await self.ask(frame, is_repeatable=True)
        self._presence = {"id": "presence", **frame}

    async def publish(self, channel: str, type: str, data: Any, to: str | None) -> str:
        """Publish a message, and return the id of its transaction; raises as `ask` does."""
        message = {"channel": channel, "data": to_jsonable_python(data)}
        if to is not None:
            message["to"] = to
        backoff = Backoff()
        while True:
            with contextlib.suppress(NeedsWebSocket):
                frame = {"type": "publish", "message_type": type, **message}
                return str((await self.ask(frame, is_repeatable=False))["txid"])
            try:
                return await self._connector.publish({"type": type, **message})
            except HandshakeRefused as refused:
                problem = f"the server answered {refused.status}: {refused.text}"
                raise Refused(problem, code=refused.status) from None
            except LinkLost as lost:
                await asyncio.sleep(max(backoff.seconds(), lost.retry_after))

    async def close(self) -> None:
        """End the connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._connection is not None:
            self._connection.close()

    async def _send(self, request: Request) -> None:
        """Send a request now, or have it sent with the next connection."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        elif self._connection is not None and self._connection.opened is not None:
            request.is_sent = True
            # If the connection breaks, the task that reads learns it, and opens another one.
            with contextlib.suppress(LinkLost):
                await self._connection.opened.link.send(request.frame)

    async def _run(self) -> None:
        """Keep a connection, and give the answers to those who wait."""
        connection = self._connection = Connection(
            "requests", self._open, self._connector, self._board, on_lost=self._lose
        )
        try:
            while True:
                self._take(await connection.next())
        except BrainClientError as error:
            for request in self._waiting.values():
                request.fail(error)

    async def _open(self) -> Opened:
        opened = await self._connector.open_websocket()
        try:
            if self._presence is not None:
                await opened.link.send(self._presence)
            # More may come while one is sent.
            while unsent := [each for each in self._waiting.values() if not each.is_sent]:
                unsent[0].is_sent = True
                await opened.link.send(unsent[0].frame)
        except BaseException:
            self._connector.drop(opened.link)
            raise
        assert self._connection is not None
        self._connection.works()
        return opened

    def _lose(self, lost: LinkLost) -> None:
        for request in self._waiting.values():
            request.lose()

    def _take(self, frame: Frame) -> None:
        request = self._waiting.get(frame.get("id", ""))
        if request is None or request.answer.done():
            return
        if frame["type"] == "error":
            code, message, advice = frame["code"], frame["message"], frame["advice"]
            request.fail(Refused(message, code=code, advice=advice))
        else:
            request.answer.set_result(frame)
