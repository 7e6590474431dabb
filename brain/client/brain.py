"""The client: one object for all that a program wants of one Brain."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, TypeVar, overload

from brain.client.address import Address
from brain.client.collection import Collection
from brain.client.connector import Connector
from brain.client.cursor_file import CursorFile
from brain.client.query import Query, Snapshot
from brain.client.requests import Requests
from brain.client.rows import Rows
from brain.client.status import Status, StatusBoard, Statuses
from brain.client.stream import Stream
from brain.client.subscription import Subscription
from brain.client.tokens import Tokens, TokenSource
from brain.client.transport_choice import Transport, TransportChoice

Row = TypeVar("Row")
PresenceStatus = Literal["online", "away", "busy", "offline"]


class Running(NamedTuple):
    """What a client has while it is in use."""

    connector: Connector
    board: StatusBoard
    requests: Requests


class Brain:
    """
    A client of Brain, within `async with`.

    `url` is that of Brain: http, https, ws or wss, with the path below which it is served. `token`
    is a text, or a callable that returns one, which is asked at every attempt to connect and before
    the token expires. In `cursor_file` the subscriptions keep their places across restarts.
    """

    def __init__(
        self,
        url: str,
        *,
        token: TokenSource = None,
        cursor_file: str | os.PathLike[str] | None = None,
        transport: Transport = "auto",
        on_status: Callable[[Status], object] | None = None,
    ) -> None:
        self._address = Address.of(url)
        self._tokens = Tokens(token)
        self._cursors = None if cursor_file is None else CursorFile(cursor_file)
        self._transport = transport
        self._on_status = on_status
        self._running: Running | None = None
        self._collections = weakref.WeakSet[Collection[Any]]()
        self._subscriptions = weakref.WeakValueDictionary[str, Subscription[Any]]()

    async def __aenter__(self) -> Self:
        if self._running is not None:
            raise RuntimeError("this Brain is in use: make another one")
        if self._cursors is not None:
            self._cursors.open()
        board = StatusBoard(self._on_status)
        connector = Connector(self._address, self._tokens, TransportChoice(self._transport))
        self._running = Running(connector, board, Requests(connector, board))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        connector, board, requests = self._within()
        self._running = None
        await requests.close()
        for collection in list(self._collections):
            await collection.aclose()
        for subscription in list(self._subscriptions.values()):
            await subscription.aclose()
        await connector.close()
        board.close()
        if self._cursors is not None:
            self._cursors.close()

    @property
    def status(self) -> Status:
        """Return how the connections are."""
        return self._within().board.status

    def statuses(self) -> Statuses:
        """Return an iterator over the status: the present one, then each that follows."""
        return Statuses(self._within().board)

    @overload
    def subscribe(
        self,
        channel: str,
        *,
        model: type[Row],
        snapshot: Snapshot = ...,
        where: Mapping[str, Any] | None = ...,
        key: Any = ...,
        limit: int | None = ...,
        after: str | None = ...,
        since: float | None = ...,
        decimals: bool = ...,
        name: str | None = ...,
    ) -> Subscription[Row]: ...
    @overload
    def subscribe(
        self,
        channel: str,
        *,
        model: None = ...,
        snapshot: Snapshot = ...,
        where: Mapping[str, Any] | None = ...,
        key: Any = ...,
        limit: int | None = ...,
        after: str | None = ...,
        since: float | None = ...,
        decimals: bool = ...,
        name: str | None = ...,
    ) -> Subscription[dict[str, Any]]: ...
    def subscribe(
        self,
        channel: str,
        *,
        model: Any = None,
        snapshot: Snapshot = False,
        where: Mapping[str, Any] | None = None,
        key: Any = None,
        limit: int | None = None,
        after: str | None = None,
        since: float | None = None,
        decimals: bool = False,
        name: str | None = None,
    ) -> Subscription[Any]:
        """
        Return an iterator over the changes of a channel, which connects when it is first asked.

        `name` is that of its cursor in the file, by default one for each channel and filter. A
        cursor that is there takes precedence over `after` and `since`. With `decimals`, all numbers
        that are no integers are Decimals, with the zeros at their ends.
        """
        connector, board, _ = self._within()
        query = Query(channel, where, key, snapshot, limit, after, since)
        name = self._free_name(name or query.name)
        rows = Rows[Any](channel, model, decimals=decimals)
        cursor = None if self._cursors is None else self._cursors.cursor(name)
        stream = Stream(query, connector, board, cursor, decimals=rows.need_decimals)
        subscription = Subscription(stream, rows, name, self._cursors)
        self._subscriptions[name] = subscription
        return subscription

    @overload
    async def collection(
        self,
        channel: str,
        *,
        model: type[Row],
        where: Mapping[str, Any] | None = ...,
        key: Any = ...,
    ) -> Collection[Row]: ...
    @overload
    async def collection(
        self,
        channel: str,
        *,
        model: None = ...,
        where: Mapping[str, Any] | None = ...,
        key: Any = ...,
    ) -> Collection[dict[str, Any]]: ...
    async def collection(
        self,
        channel: str,
        *,
        model: Any = None,
        where: Mapping[str, Any] | None = None,
        key: Any = None,
    ) -> Collection[Any]:
        """
        Return the rows of a channel once they are complete; they are kept up from then on.

        Raises Refused, Closed, or InvalidRow.
        """
        connector, board, _ = self._within()
        rows = Rows[Any](channel, model)
        query = Query(channel, where, key, snapshot=True)
        stream = Stream(query, connector, board, None, decimals=rows.are_of_a_model)
        collection = Collection[Any](stream, rows)
        try:
            await collection.ready()
        except BaseException:
            await collection.aclose()
            raise
        self._collections.add(collection)
        return collection

    async def publish(
        self, channel: str, type: str, data: Any = None, to: str | None = None
    ) -> str:
        """
        Publish a message, to all subscribers or to one user; return the id of its transaction.

        Waits while there is no connection. Raises Refused, Closed, or ConnectionLost if the message
        may have been published.
        """
        return await self._within().requests.publish(channel, type, data, to)

    async def until(self, txid: str) -> None:
        """
        Return once every collection shows a transaction; without one, once Brain has sent it.

        Raises Refused, Closed, or NeedsWebSocket.
        """
        requests = self._within().requests
        following = [each for each in self._collections if not each.is_closed]
        if following:
            await asyncio.gather(*(each.until(txid) for each in following))
        else:
            await requests.ask({"type": "until", "txid": txid}, is_repeatable=True)

    async def set_presence(self, status: PresenceStatus) -> None:
        """
        Set the presence of the token's user, for as long as this client is there.

        Raises Refused, Closed, or NeedsWebSocket.
        """
        await self._within().requests.set_presence(status)

    def _free_name(self, name: str) -> str:
        """Return a name for a subscription; raises ValueError if its cursor is in use."""
        taken = self._subscriptions.get(name)
        if taken is None or taken.is_closed:
            return name
        if self._cursors is not None:
            raise ValueError(f"a subscription named {name!r} runs: give this one another name=")
        number = 2
        while f"{name} ({number})" in self._subscriptions:
            number += 1
        return f"{name} ({number})"

    def _within(self) -> Running:
        if self._running is None:
            raise RuntimeError("use the client within: async with Brain(url) as brain")
        return self._running
