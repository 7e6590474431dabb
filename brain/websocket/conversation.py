"""Everything said over one WebSocket."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from brain.database.connection import DISCONNECTIONS, told
from brain.database.log import Log
from brain.database.snapshot import SnapshotReader
from brain.errors import ConnectionEnded, CursorLost, HistoryLost, LogUnreachable
from brain.hub.hub import Hub
from brain.hub.subscriber import Subscriber
from brain.message.cursor import Cursor
from brain.message.event import Batch
from brain.message.wire_format import WireFormat, frame

logger = logging.getLogger(__name__)

# How many events a client is handed before others get their turn.
HANDFUL = 100

# How long a client that comes back may wait for its turn to read the log.
ACQUIRE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Setting:
    """What a conversation needs to know of the place where it is held."""

    hub: Hub
    snapshots: SnapshotReader
    heartbeat_seconds: float
    database_timeout_seconds: float


async def converse(
    websocket: WebSocket,
    setting: Setting,
    wire_format: WireFormat,
    channels: frozenset[str],
    *,
    after: str | None = None,
    wants_snapshot: bool = False,
    subprotocol: str | None = None,
) -> None:
    """
    Greet a client, then tell it what happens and answer it, until either side has enough.

    It is subscribed before it is greeted: what happens once it has seen the greeting, it hears.
    With the text of a cursor in `after`, it hears first what has happened since. If it wants a
    snapshot, it is told what the tables hold wherever what happened would not say: when it comes
    without a cursor, and after a reset.
    """
    filled = asyncio.Event()
    await websocket.accept(subprotocol)
    cursor, lost = parsed(after)
    try:
        if wants_snapshot and not after:
            cursor = setting.hub.cursor
        with setting.hub.subscribed(wire_format, channels, filled.set, cursor) as subscriber:
            conversation = Conversation(websocket, setting, subscriber, filled, wants_snapshot)
            await conversation.hold(lost, begins_with_snapshot=wants_snapshot and not after)
    except* ConnectionEnded as ended:
        (reason,) = ended.exceptions
        assert isinstance(reason, ConnectionEnded)
        with suppress(WebSocketDisconnect, WebSocketDisconnected):  # it may have left already
            await websocket.close(reason.close_code, str(reason))
    except* (WebSocketDisconnect, WebSocketDisconnected):
        pass  # the client went away while it was spoken to


class Conversation:
    """One client's half of the talking is heard, and the other half spoken, at the same time."""

    def __init__(
        self,
        websocket: WebSocket,
        setting: Setting,
        subscriber: Subscriber,
        filled: asyncio.Event,
        wants_snapshot: bool,
    ) -> None:
        self._websocket = websocket
        self._setting = setting
        self._hub = setting.hub
        self._subscriber = subscriber
        self._wire_format = subscriber.wire_format
        self._filled = filled
        """Set when the hub may have something for the client."""
        self._wants_snapshot = wants_snapshot

    async def hold(self, lost: CursorLost | None, *, begins_with_snapshot: bool) -> None:
        """Converse; if the cursor that the client came with was `lost`, that is said first."""
        greeting = self._wire_format.greet(now(), self._subscriber.cursor)
        await self._websocket.send_text(greeting)
        async with asyncio.TaskGroup() as tasks:
            speaking = tasks.create_task(self._speak_to_the_end(lost, begins_with_snapshot))
            await self._hear()
            speaking.cancel()

    async def _hear(self) -> None:
        """Answer what the client says, until it leaves."""
        while True:
            received = await self._websocket.receive()
            if received["type"] == "websocket.disconnect":
                return
            text = received.get("text")
            if text is None:
                await self._websocket.close(1003, "text messages only")
                return
            answer = self._wire_format.answer(text, now(), self._hub.reached(self._subscriber))
            await self._websocket.send_text(answer)

    async def _speak_to_the_end(self, lost: CursorLost | None, begins_with_snapshot: bool) -> None:
        """
        Speak until this is cancelled; raise if it ends in any other way.

        A cancellation that nobody asked for (the connection that was borrowed is the one of a
        client that has just left) would end a task without a word, and leave a client that is
        connected and hears nothing.
        """
        task = asyncio.current_task()
        assert task is not None
        try:
            await self._speak(lost, begins_with_snapshot)
        except asyncio.CancelledError as error:
            if task.cancelling():
                raise
            logger.warning("the telling of a client was cancelled by nobody", exc_info=error)
            raise LogUnreachable("the log cannot be read at the moment") from error

    async def _speak(self, lost: CursorLost | None, begins_with_snapshot: bool) -> None:
        """Tell the client what the hub has for it, at the speed at which it reads."""
        if lost is not None:
            await self._reset(lost)
        elif begins_with_snapshot:
            await self._tell_snapshot()
        else:
            await self._catch_up()
        while True:
            self._filled.clear()
            try:
                frames = self._hub.take(self._subscriber, HANDFUL)
            except HistoryLost as lost:
                await self._reset(lost)
                continue
            for text in frames:
                await self._websocket.send_text(text)
            if not self._hub.is_behind(self._subscriber):
                await self._wait()

    async def _wait(self) -> None:
        """Wait until there is something to say, or it is time for a sign of life."""
        try:
            async with asyncio.timeout(self._setting.heartbeat_seconds):
                await self._filled.wait()
        except TimeoutError:
            text = self._wire_format.heartbeat(now(), self._hub.reached(self._subscriber))
            if text is not None:
                await self._websocket.send_text(text)

    async def _catch_up(self) -> None:
        """
        Tell from the log what the ring does not reach back to, up to where it does.

        One read at a time, each over a connection that is lent for just that: however many come
        back at once, the database is asked by a few.
        """
        try:
            while not self._hub.resume(self._subscriber):
                if self._subscriber.cursor.place >= self._hub.cursor.place:
                    return await self._wait_for_hub()
                async with self._log() as log:
                    batch = await log.after(self._subscriber.cursor)
                await self._tell(batch)
        except CursorLost as lost:
            await self._reset(lost)

    async def _tell(self, batch: Batch) -> None:
        """Tell what was read from the log."""
        for event in batch.events:
            text = frame(event, self._wire_format)
            if text is not None and event.channel in self._subscriber.channels:
                await self._websocket.send_text(text)
            self._subscriber.cursor = event.cursor
        self._subscriber.cursor = batch.cursor

    async def _wait_for_hub(self) -> None:
        """Leave it to the hub to reach the cursor, if the log knows it: this node is behind."""
        # Before the log is asked: what reaches the hub meanwhile is in the queue already.
        self._hub.wait(self._subscriber)
        async with self._log() as log:
            if not await log.holds(self._subscriber.cursor):
                raise CursorLost(f"the log does not know {self._subscriber.cursor}")

    @asynccontextmanager
    async def _log(self) -> AsyncIterator[Log]:
        """Borrow the log for one question."""
        pool: asyncpg.Pool = self._websocket.state.pool
        try:
            async with pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
                yield Log(connection, self._setting.database_timeout_seconds)
        except DISCONNECTIONS as error:
            logger.warning("cannot read the log for a client: %s", told(error))
            raise LogUnreachable("the log cannot be read at the moment") from error

    async def _reset(self, lost: CursorLost | HistoryLost) -> None:
        """Say that something is missing, and go on from here; end the connection otherwise."""
        self._hub.start_over(self._subscriber)
        text = self._wire_format.reset(str(lost), now(), self._subscriber.cursor)
        if text is None:
            raise HistoryLost(str(lost))
        await self._websocket.send_text(text)
        if self._wants_snapshot:
            await self._tell_snapshot()

    async def _tell_snapshot(self) -> None:
        """Tell what the tables hold, and then what happens after that."""
        pool: asyncpg.Pool = self._websocket.state.pool
        try:
            snapshot = await self._setting.snapshots.read(pool, self._subscriber.channels)
        except DISCONNECTIONS as error:
            logger.warning("cannot read a snapshot for a client: %s", told(error))
            raise LogUnreachable("the tables cannot be read at the moment") from error
        for text in self._wire_format.tell_snapshot(snapshot, now()):
            await self._websocket.send_text(text)
        self._subscriber.cursor = snapshot.cursor
        await self._catch_up()


def parsed(after: str | None) -> tuple[Cursor | None, CursorLost | None]:
    """Return the cursor that a client came with, or why it is none."""
    try:
        return (Cursor.parse(after) if after else None), None
    except CursorLost as lost:
        return None, lost


def now() -> datetime:
    return datetime.now(UTC)
