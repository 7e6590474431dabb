"""Telling a client what has to be read first: from the log, or from the tables."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg

from brain.database.connection import DISCONNECTIONS, told
from brain.database.history import HistoryReader
from brain.database.snapshot import SnapshotReader
from brain.errors import ConnectionEnded, CursorLost, LogUnreachable
from brain.hub.hub import CHUNK_BYTES, Hub
from brain.hub.subscriber import Subscriber
from brain.message.cursor import Cursor
from brain.message.event import Batch
from brain.message.wire_format import frames_for, snapshot_frames
from brain.websocket.outlet import Outlet

INTERNAL_ERROR = 1011

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where what is said comes from."""

    hub: Hub
    pool: asyncpg.Pool
    history: HistoryReader
    snapshots: SnapshotReader


class Telling:
    """
    Tells one subscriber what lies before the ring, until the hub can go on.

    It has a task only meanwhile.
    """

    __slots__ = ("_close", "_drained", "_lose", "_outlet", "_sources", "_subscriber", "_task")

    def __init__(
        self,
        subscriber: Subscriber,
        sources: Sources,
        outlet: Outlet,
        *,
        lose: Callable[[CursorLost], None],
        close: Callable[[int, str], None],
    ) -> None:
        self._subscriber = subscriber
        self._sources = sources
        self._outlet = outlet
        self._lose = lose
        self._close = close
        self._task: asyncio.Task[None] | None = None
        self._drained: asyncio.Future[None] | None = None

    def go_on(self) -> None:
        """Tell what follows the subscriber's cursor: from the ring, or from the log until there."""
        if not self._sources.hub.resume(self._subscriber):
            self._start(self._catch_up())

    def tell_rows(self) -> None:
        """Tell what the tables hold, and then what happens after that."""
        self._start(self._tell_snapshot())

    def drain(self) -> None:
        """Go on: the client has read what was written."""
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _start(self, telling: Coroutine[Any, Any, None]) -> None:
        self._task = asyncio.create_task(self._run(telling), name="telling")

    async def _run(self, telling: Coroutine[Any, Any, None]) -> None:
        """
        Tell what has to be waited for; whatever goes wrong ends the connection.

        Also a cancellation that nobody asked for, for instance of a connection to the database that
        another client was just lent: it would leave this one connected and hearing nothing.
        """
        task = self._task
        assert task is not None
        try:
            await telling
        except CursorLost as lost:
            self._task = None
            self._lose(lost)
        except ConnectionEnded as reason:
            self._task = None
            self._close(reason.close_code, str(reason))
        except asyncio.CancelledError as error:
            if task.cancelling():
                raise
            logger.warning("the telling of a client was cancelled by nobody", exc_info=error)
            self._task = None
            self._close(LogUnreachable.close_code, "the log cannot be read at the moment")
        except Exception:
            logger.exception("a client cannot be told what it missed")
            self._task = None
            self._close(INTERNAL_ERROR, "internal error")
        else:
            self._task = None

    async def _catch_up(self) -> None:
        """
        Tell from the log what the ring does not reach back to, up to where it does.

        Page by page, as the client reads them; others that come back read the same pages.
        """
        hub, subscriber = self._sources.hub, self._subscriber
        while not hub.resume(subscriber):
            if subscriber.cursor.place >= hub.cursor.place:
                await self._wait_for_hub()
                return
            await self._tell(await self._sources.history.after(subscriber.cursor))

    async def _tell(self, batch: Batch) -> None:
        """Tell what was read from the log."""
        subscriber = self._subscriber
        frames: list[bytes] = []
        size = 0
        for event in batch.events:
            for data in frames_for(
                (event,), subscriber.wire_format, subscriber.interest, subscriber.user
            ):
                frames.append(data)
                size += len(data)
            if size >= CHUNK_BYTES:
                await self._write(frames, event.cursor)
                frames, size = [], 0
        await self._write(frames, batch.cursor)

    async def _wait_for_hub(self) -> None:
        """Leave it to the hub to reach the cursor, if the log knows it: this node is behind."""
        # Before the log is asked: what reaches the hub meanwhile is told already.
        self._sources.hub.wait(self._subscriber)
        if not await self._sources.history.holds(self._subscriber.cursor):
            raise CursorLost(f"the log does not know {self._subscriber.cursor}")

    async def _tell_snapshot(self) -> None:
        sources, subscriber = self._sources, self._subscriber
        try:
            snapshot = await sources.snapshots.read(sources.pool, subscriber.interest.channels)
        except DISCONNECTIONS as error:
            logger.warning("cannot read a snapshot for a client: %s", told(error))
            raise LogUnreachable("the tables cannot be read at the moment") from error
        for data in snapshot_frames(snapshot, subscriber.wire_format, datetime.now(UTC)):
            await self._write([data], subscriber.cursor)
        subscriber.cursor = snapshot.cursor
        await self._catch_up()

    async def _write(self, frames: list[bytes], after: Cursor) -> None:
        """Write what leads up to a place, once the client has read what was written before."""
        while self._subscriber.is_paused:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained
        if frames:
            self._outlet.write(b"".join(frames))
            await asyncio.sleep(0)  # others wait too, for the same page or for what happens
        self._subscriber.cursor = after
