"""The rows of a subscription, kept as they are in the table."""

from __future__ import annotations

import asyncio
import itertools
import logging
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from brain.client.errors import BrainClientError, InvalidRow, NeedsWebSocket, Refused
from brain.client.link import Frame
from brain.client.row_set import RowSet, key_of
from brain.client.rows import Rows
from brain.client.stream import Stream

Row = TypeVar("Row")

logger = logging.getLogger("brain.client")


class Collection(Generic[Row]):
    """
    The rows that match, as they were at one moment of the table, and as soon as they change.

    While the rows are loaded anew, those of before stay.
    """

    def __init__(self, stream: Stream, rows: Rows[Row]) -> None:
        self._stream = stream
        self._set = RowSet(rows)
        self.version = 0
        """The number of changes so far."""
        self._changed = asyncio.Event()
        self._error: BrainClientError | None = None
        self._untils: dict[str, Until] = {}
        self._ids = (f"until {number}" for number in itertools.count(1))
        self._task = asyncio.create_task(self._follow())

    @property
    def rows(self) -> list[Row]:
        """Return the rows, in no particular order."""
        return list(self._set.shown.values())

    def __len__(self) -> int:
        return len(self._set.shown)

    def __getitem__(self, key: Any) -> Row:
        """Return the row with a primary key: one value, or the values in their order."""
        return self._set.shown[key_of(key)]

    def get(self, key: Any) -> Row | None:
        """Return the row with a primary key, if it is there."""
        return self._set.shown.get(key_of(key))

    def __contains__(self, key: Any) -> bool:
        return key_of(key) in self._set.shown

    @property
    def error(self) -> BrainClientError | None:
        """Why the rows are not kept up any more."""
        return self._error

    @property
    def is_closed(self) -> bool:
        return self._stream.is_closed

    def updates(self) -> Updates[Row]:
        """
        Return an iterator with one step for each transaction that changes rows.

        A loop that is slower gets one step for several. It raises Refused or Closed when the rows
        are not kept up any more, and InvalidRow for a row that does not fit, which is not shown.
        """
        return Updates(self, self.version)

    async def ready(self) -> None:
        """Return once the rows are complete; raises Refused, Closed, or InvalidRow."""
        while not self._set.is_complete:
            await self.change_from(self.version)
        self._raise_invalid()

    async def until(self, txid: str) -> None:
        """Return once the rows show a transaction; raises Refused or Closed."""
        self._raise_error()
        id = next(self._ids)
        until = self._untils[id] = Until({"type": "until", "id": id, "txid": txid})
        try:
            await self._send(until)
            await until.answer
        finally:
            del self._untils[id]

    async def aclose(self) -> None:
        """Keep the rows up no more."""
        self._task.cancel()
        await asyncio.wait({self._task})
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

    async def change_from(self, version: int) -> int:
        """Return the number of the latest change once it is another; raises as `updates` does."""
        self._raise_invalid()
        while self.version == version:
            self._raise_error()
            await self._changed.wait()
        self._raise_invalid()
        return self.version

    async def _follow(self) -> None:
        try:
            while True:
                await self._take(await self._stream.next())
        except BrainClientError as error:
            self._error = error
            for until in self._untils.values():
                until.fail(error)
            self._notify()

    async def _take(self, frame: Frame) -> None:
        match frame:
            case {"type": "subscribed"}:
                if "cursor" not in frame and "replaces" not in frame:
                    self._set.begin()
                for until in list(self._untils.values()):
                    await self._send(until)
            case {"type": "until" | "error", "id": id} if id in self._untils:
                self._untils[id].come(frame)
            case {"op": _} if self._stream.place.concerns(frame):
                self._apply(frame)
        if self._stream.place.is_live:
            for until in self._untils.values():
                until.show()

    async def _send(self, until: Until) -> None:
        try:
            await self._stream.send(until.frame)
        except NeedsWebSocket as error:
            until.fail(error)

    def _apply(self, frame: Frame) -> None:
        if frame["op"] == "commit" and "sub" not in frame and not self._stream.place.is_live:
            return
        invalid = self._set.invalid
        if self._set.take(frame):
            self.version += 1
            self._notify()
        if self._set.invalid is not invalid:
            logger.warning("%s", self._set.invalid)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _raise_invalid(self) -> None:
        invalid, self._set.invalid = self._set.invalid, None
        if invalid is not None:
            raise InvalidRow(invalid.channel, invalid.key, invalid.problem)


class Until:
    """A wait for a transaction to show."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._has_come = False

    def come(self, frame: Frame) -> None:
        """Take the answer: the rows show it once the subscription has caught up."""
        self._has_come = frame["type"] == "until"
        if not self._has_come:
            code, message, advice = frame["code"], frame["message"], frame["advice"]
            self.fail(Refused(message, code=code, advice=advice))

    def show(self) -> None:
        """End the wait if the answer has come."""
        if self._has_come and not self.answer.done():
            self.answer.set_result(None)

    def fail(self, error: BrainClientError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Updates(Generic[Row]):
    """Iterates over the changes of a collection, and yields the collection."""

    def __init__(self, collection: Collection[Row], seen: int) -> None:
        self._collection = collection
        self._seen = seen

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Collection[Row]:
        try:
            self._seen = await self._collection.change_from(self._seen)
        except InvalidRow:
            self._seen = self._collection.version
            raise
        return self._collection
