"""A subscription as an asynchronous iterator."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Generic, Self, TypeVar

from brain.client.change import Change
from brain.client.connection import ClosedHere
from brain.client.cursor_file import CursorFile
from brain.client.link import Frame
from brain.client.rows import Rows, pieces
from brain.client.stream import Stream

Row = TypeVar("Row")


class Subscription(Generic[Row]):
    """
    Yields changes, each at least once.

    A change counts as handled when the next one is asked for. Then its cursor is stored. Whatever
    stops the program before, the next run gets the change again, and all that follow.
    """

    def __init__(
        self, stream: Stream, rows: Rows[Row], name: str, cursors: CursorFile | None
    ) -> None:
        self.name = name
        """Of the cursor in the file."""
        self._stream = stream
        self._rows = rows
        self._cursors = cursors
        self._pending: deque[Frame] = deque()
        self._has_rows = cursors is not None and name in cursors
        """True if the program may hold rows of before: a snapshot has to be announced."""
        self._is_waiting = False

    @property
    def is_closed(self) -> bool:
        return self._stream.is_closed

    @property
    def is_live(self) -> bool:
        """Return True once it has all that had happened when it was begun, or resumed."""
        return self._stream.place.is_live

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change[Row]:
        if self._is_waiting:
            raise RuntimeError("another task waits for the next change of this subscription")
        self._is_waiting = True
        try:
            while not self._pending:
                await self.store_cursor()
                self._take(await self._stream.next())
        except ClosedHere:
            raise StopAsyncIteration from None
        finally:
            self._is_waiting = False
        return self._rows.change(self._pending.popleft())

    async def store_cursor(self) -> None:
        """
        Store the place after the change in hand, as asking for the next one does.

        It is for a program that ends after it.
        """
        if self._cursors is not None and self._stream.has_begun:
            await self._cursors.store(self.name, self._stream.place.cursor)

    async def aclose(self) -> None:
        """End the subscription; the change in hand counts as not handled."""
        self._pending.clear()
        self._stream.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        self._stream.abandon()

    def _take(self, frame: Frame) -> None:
        if frame.get("type") == "subscribed":
            if "cursor" not in frame and "replaces" not in frame and self._has_rows:
                self._pending.append({"op": "reset", "reason": BEGINS_ANEW})
            self._has_rows = True
        elif self._stream.place.concerns(frame):
            self._pending.extend(pieces(frame))


BEGINS_ANEW = "the snapshot begins anew: it was interrupted before its end"
