"""Everything said over one WebSocket."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg

from brain.database.connection import DISCONNECTIONS, told
from brain.database.history import HistoryReader
from brain.database.snapshot import SnapshotReader
from brain.errors import (
    ConnectionEnded,
    CursorLost,
    HistoryLost,
    LogUnreachable,
    NotReady,
    TooFarBehind,
)
from brain.hub.hub import CHUNK_BYTES, Hub
from brain.hub.subscriber import Subscriber
from brain.message.cursor import Cursor
from brain.message.event import Batch
from brain.message.frames import framed
from brain.message.json_depth import is_deeper
from brain.message.wire_format import WireFormat, frame, snapshot_frames
from brain.websocket.outlet import Outlet

logger = logging.getLogger(__name__)

NO_TEXT, INTERNAL_ERROR, EXPIRED, TOO_DEEP = 1003, 1011, 4401, 4501


@dataclass(frozen=True, slots=True)
class Sources:
    """Where what is said comes from."""

    hub: Hub
    pool: asyncpg.Pool
    history: HistoryReader
    snapshots: SnapshotReader


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client wants to hear."""

    wire_format: WireFormat
    channels: frozenset[str]
    after: str | None = None
    """The text of a cursor: it hears first what has happened since."""
    wants_snapshot: bool = False
    """It is told what the tables hold wherever what happened would not say: when it comes without a
    cursor, and after a reset."""
    wants_latest: bool = False
    """It may be spared what has been overtaken, while it is behind."""


class Conversation:
    """
    One client: greeted, told what it missed and what happens, and answered.

    It has a task only as long as something has to be waited for: the log, or the tables. Otherwise
    the hub writes to its outlet, and the outlet calls it when the client says something.
    """

    def __init__(
        self,
        outlet: Outlet,
        sources: Sources,
        wish: Wish,
        *,
        most_depth: int,
        seconds_left: float = math.inf,
        when_over: Callable[[], None],
    ) -> None:
        self._outlet = outlet
        self._sources = sources
        self._hub = sources.hub
        self._wish = wish
        self._wire_format = wish.wire_format
        self._most_depth = most_depth
        self._seconds_left = seconds_left
        self._expiry: asyncio.TimerHandle | None = None
        self._when_over = when_over
        self._subscriber: Subscriber | None = None
        self._telling: asyncio.Task[None] | None = None
        self._drained: asyncio.Future[None] | None = None

    def begin(self) -> None:
        """Greet the client, and tell it what happens from then on; it is subscribed before."""
        if self._seconds_left < math.inf:
            self._expiry = asyncio.get_running_loop().call_later(
                max(0.0, self._seconds_left), self._close, EXPIRED, "the token has expired"
            )
        cursor, lost = parsed(self._wish.after)
        wants_rows = self._wish.wants_snapshot and not self._wish.after
        try:
            self._subscriber = self._hub.subscribe(
                self._wire_format,
                self._wish.channels,
                self._outlet.send_now,
                self._outlet.write,
                self._lose,
                after=cursor,
                wants_latest=self._wish.wants_latest,
            )
        except NotReady as reason:
            self._end(reason)
            return
        self._say(self._wire_format.greet(now(), self._subscriber.cursor))
        if lost is not None:
            self._lose(lost)
        elif wants_rows:
            self._start(self._tell_snapshot(self._subscriber))
        else:
            self._go_on(self._subscriber)

    def hear(self, message: str | bytes) -> None:
        """Answer what the client says."""
        if self._subscriber is None:
            return
        if isinstance(message, bytes):
            self._close(NO_TEXT, "text messages only")
        elif is_deeper(message, self._most_depth):
            self._close(TOO_DEEP, "nested too deeply")
        else:
            cursor = self._hub.reached(self._subscriber)
            self._say(self._wire_format.answer(message, now(), cursor))

    def pause(self) -> None:
        """Write no more until the client has read what was written."""
        if self._subscriber is not None:
            self._hub.pause(self._subscriber)

    def drain(self) -> None:
        """Go on: it has."""
        if self._subscriber is not None:
            self._hub.drain(self._subscriber)
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def leave(self) -> None:
        """Forget the client; may be called again."""
        if self._subscriber is not None:
            self._hub.unsubscribe(self._subscriber)
            self._subscriber = None
        if self._telling is not None:
            self._telling.cancel()
        if self._expiry is not None:
            self._expiry.cancel()
        self._when_over()

    def _say(self, text: str) -> None:
        self._outlet.write(framed(text))

    def _end(self, reason: ConnectionEnded) -> None:
        self._close(reason.close_code, str(reason))

    def _close(self, code: int, reason: str) -> None:
        self.leave()
        self._outlet.close(code, reason)

    def _lose(self, reason: CursorLost | ConnectionEnded) -> None:
        """Say that something is missing, and go on from here; end the connection otherwise."""
        subscriber = self._subscriber
        if subscriber is None:
            return
        if isinstance(reason, TooFarBehind):
            self._end(reason)
            return
        self._hub.start_over(subscriber)
        text = self._wire_format.reset(str(reason), now(), subscriber.cursor)
        if text is None:
            self._end(HistoryLost(str(reason)))
            return
        self._say(text)
        if self._wish.wants_snapshot:
            self._start(self._tell_snapshot(subscriber))
        else:
            self._go_on(subscriber)

    def _go_on(self, subscriber: Subscriber) -> None:
        """Tell what follows the subscriber's cursor: from the ring, or from the log until there."""
        if not self._hub.resume(subscriber):
            self._start(self._catch_up(subscriber))

    def _start(self, telling: Coroutine[Any, Any, None]) -> None:
        self._telling = asyncio.create_task(self._run(telling), name="telling")

    async def _run(self, telling: Coroutine[Any, Any, None]) -> None:
        """
        Tell what has to be waited for; whatever goes wrong ends the connection.

        Also a cancellation that nobody asked for, for instance of a connection to the database that
        another client was just lent: it would leave this one connected and hearing nothing.
        """
        task = self._telling
        assert task is not None
        try:
            await telling
        except CursorLost as lost:
            self._telling = None
            self._lose(lost)
        except ConnectionEnded as reason:
            self._telling = None
            self._end(reason)
        except asyncio.CancelledError as error:
            if task.cancelling():
                raise
            logger.warning("the telling of a client was cancelled by nobody", exc_info=error)
            self._telling = None
            self._end(LogUnreachable("the log cannot be read at the moment"))
        except Exception:
            logger.exception("a client cannot be told what it missed")
            self._telling = None
            self._close(INTERNAL_ERROR, "internal error")
        else:
            self._telling = None

    async def _catch_up(self, subscriber: Subscriber) -> None:
        """
        Tell from the log what the ring does not reach back to, up to where it does.

        Page by page, as the client reads them; others that come back read the same pages.
        """
        while not self._hub.resume(subscriber):
            if subscriber.cursor.place >= self._hub.cursor.place:
                await self._wait_for_hub(subscriber)
                return
            await self._tell(subscriber, await self._sources.history.after(subscriber.cursor))

    async def _tell(self, subscriber: Subscriber, batch: Batch) -> None:
        """Tell what was read from the log."""
        frames: list[bytes] = []
        size = 0
        for event in batch.events:
            data = frame(event, self._wire_format)
            if data is not None and event.channel in subscriber.channels:
                frames.append(data)
                size += len(data)
            if size >= CHUNK_BYTES:
                await self._write(subscriber, frames, event.cursor)
                frames, size = [], 0
        await self._write(subscriber, frames, batch.cursor)

    async def _wait_for_hub(self, subscriber: Subscriber) -> None:
        """Leave it to the hub to reach the cursor, if the log knows it: this node is behind."""
        # Before the log is asked: what reaches the hub meanwhile is told already.
        self._hub.wait(subscriber)
        if not await self._sources.history.holds(subscriber.cursor):
            raise CursorLost(f"the log does not know {subscriber.cursor}")

    async def _tell_snapshot(self, subscriber: Subscriber) -> None:
        """Tell what the tables hold, and then what happens after that."""
        sources = self._sources
        try:
            snapshot = await sources.snapshots.read(sources.pool, subscriber.channels)
        except DISCONNECTIONS as error:
            logger.warning("cannot read a snapshot for a client: %s", told(error))
            raise LogUnreachable("the tables cannot be read at the moment") from error
        for data in snapshot_frames(snapshot, self._wire_format, now()):
            await self._write(subscriber, [data], subscriber.cursor)
        subscriber.cursor = snapshot.cursor
        await self._catch_up(subscriber)

    async def _write(self, subscriber: Subscriber, frames: list[bytes], after: Cursor) -> None:
        """Write what leads up to a place, once the client has read what was written before."""
        while subscriber.is_paused:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained
        if frames:
            self._outlet.write(b"".join(frames))
            await asyncio.sleep(0)  # others wait too, for the same page or for what happens
        subscriber.cursor = after


def parsed(after: str | None) -> tuple[Cursor | None, CursorLost | None]:
    """Return the cursor that a client came with, or why it is none."""
    try:
        return (Cursor.parse(after) if after else None), None
    except CursorLost as lost:
        return None, lost


def now() -> datetime:
    return datetime.now(UTC)
