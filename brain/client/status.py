"""How the connections of a client are: one status for all of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Literal, NamedTuple, Self

State = Literal["connecting", "live", "catching-up", "offline", "closed"]
logger = logging.getLogger("brain.client")

WORST_FIRST: tuple[State, ...] = ("offline", "connecting", "catching-up", "live")


class Status(NamedTuple):
    """The state of the connections, and why it is so."""

    state: State
    why: str | None = None
    advice: str | None = None
    code: int | str | None = None


CONNECTING = Status("connecting")
CATCHING_UP = Status("catching-up")
LIVE = Status("live")


class StatusBoard:
    """Joins the status of every connection into one: that of the one that is worst off."""

    def __init__(self, on_status: Callable[[Status], object] | None = None) -> None:
        self.status = CONNECTING
        self.is_closed = False
        self._on_status = on_status
        self._open: dict[object, Status] = {}
        self._changed = asyncio.Event()

    def report(self, connection: object, status: Status) -> None:
        """Note the status of a connection; with `closed` it counts no more."""
        if status.state == "closed":
            self._open.pop(connection, None)
            if not self._open:
                self._show(status)
                return
        else:
            self._open[connection] = status
        self._show_worst()

    def leave(self, connection: object) -> None:
        """Forget a connection that was ended on purpose."""
        if self._open.pop(connection, None) is not None:
            self._show_worst()

    def close(self) -> None:
        """Show that the client has ended."""
        self._open.clear()
        self.is_closed = True
        self._show(Status("closed", "the client was closed"))

    async def change_from(self, seen: Status | None) -> Status | None:
        """Return the status once it is not `seen`; None if none follows."""
        while self.status is seen:
            if self.is_closed:
                return None
            await self._changed.wait()
        return self.status

    def _show_worst(self) -> None:
        if self._open:
            self._show(min(self._open.values(), key=lambda each: WORST_FIRST.index(each.state)))

    def _show(self, status: Status) -> None:
        if status == self.status:
            return
        self.status = status
        self._changed.set()
        self._changed = asyncio.Event()
        if self._on_status is not None:
            try:
                self._on_status(status)
            except Exception:
                # The connections go on: they are not those of the callback alone.
                logger.exception("on_status failed")


class Statuses:
    """Iterates over the status: the present one, then each that follows; a slow loop skips some."""

    def __init__(self, board: StatusBoard) -> None:
        self._board = board
        self._seen: Status | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Status:
        self._seen = await self._board.change_from(self._seen)
        if self._seen is None:
            raise StopAsyncIteration
        return self._seen
