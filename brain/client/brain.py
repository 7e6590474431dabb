"""The client: one object for all that a program wants of one Brain."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from brain.client.address import Address
from brain.client.connector import Connector
from brain.client.cursor_file import CursorFile
from brain.client.query import Query, Snapshot
from brain.client.rows import Rows
from brain.client.status import Status, StatusBoard, Statuses
from brain.client.stream import Stream
from brain.client.subscription import Subscription
from brain.client.tokens import Tokens, TokenSource
from brain.client.transport_choice import Transport, TransportChoice

Row = TypeVar("Row")


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
        self._board: StatusBoard | None = None
        self._connector: Connector | None = None
        self._subscriptions = weakref.WeakValueDictionary[str, Subscription[Any]]()

    async def __aenter__(self) -> Self:
        if self._connector is not None:
            raise RuntimeError("this Brain is in use: make another one")
        if self._cursors is not None:
            self._cursors.open()
        self._board = StatusBoard(self._on_status)
        self._connector = Connector(self._address, self._tokens, TransportChoice(self._transport))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        connector, board = self._within()
        self._connector = None
        for subscription in list(self._subscriptions.values()):
            await subscription.aclose()
        await connector.close()
        board.close()
        if self._cursors is not None:
            self._cursors.close()

    @property
    def status(self) -> Status:
        """Return how the connections are."""
        return self._within()[1].status

    def statuses(self) -> Statuses:
        """Return an iterator over the status: the present one, then each that follows."""
        return Statuses(self._within()[1])

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
        connector, board = self._within()
        query = Query(channel, where, key, snapshot, limit, after, since)
        name = self._free_name(name or query.name)
        rows = Rows[Any](channel, model, decimals=decimals)
        cursor = None if self._cursors is None else self._cursors.cursor(name)
        stream = Stream(query, connector, board, cursor, decimals=rows.need_decimals)
        subscription = Subscription(stream, rows, name, self._cursors)
        self._subscriptions[name] = subscription
        return subscription

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

    def _within(self) -> tuple[Connector, StatusBoard]:
        if self._connector is None or self._board is None:
            raise RuntimeError("use the client within: async with Brain(url) as brain")
        return self._connector, self._board
