"""Sends a client what lies before the ring: from the log, or rows of tables."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from brain.close_codes import CloseCode
from brain.errors import ConnectionEnded, CursorLost, SlowConsumer
from brain.hub.hub import CHUNK_BYTES
from brain.hub.subscriber import Subscriber
from brain.message.cursor import Cursor
from brain.message.event import Batch, Event
from brain.message.page import Page, PageRequest
from brain.message.subscription_encoding import SubscriptionEncoding
from brain.message.topic_handle import TopicHandle
from brain.session.sources import Sources
from brain.session.transport_protocol import Transport

# How long a client waits for the hub to reach a tick, before what lies before it is read from the
# log for this client.
REACH_SECONDS = 0.5


class CatchUp:
    """
    Sends one subscriber what the ring does not hold, until the hub can go on.

    It has a task only meanwhile.
    """

    __slots__ = (
        "_close",
        "_encoding",
        "_has_cursor",
        "_on_gap",
        "_resumed",
        "_sources",
        "_subscriber",
        "_task",
        "_transport",
    )

    def __init__(
        self,
        subscriber: Subscriber,
        sources: Sources,
        transport: Transport,
        *,
        on_gap: Callable[[CursorLost], None],
        close: Callable[[CloseCode, str], None],
        has_cursor: bool = False,
    ) -> None:
        """`has_cursor`: the client came back with a place in the log."""
        self._has_cursor = has_cursor
        self._subscriber = subscriber
        self._encoding = subscriber.encoding
        self._sources = sources
        self._transport = transport
        self._on_gap = on_gap
        self._close = close
        self._task: asyncio.Task[None] | None = None
        self._resumed: asyncio.Future[None] | None = None

    def resume(self) -> None:
        """Go on after the subscriber's cursor: from the ring, or from the log until there."""
        self.cancel()
        is_in_ring = self._sources.hub.resume(self._subscriber)
        if self._has_cursor:
            self._has_cursor = False
            self._sources.hub.traffic.note_resume(is_in_ring=is_in_ring)
        if not is_in_ring:
            self._start(self._read_log)

    def send_rows(self) -> None:
        """Send the rows of the tables, and then what happens after that."""
        self.cancel()
        self._start(self._send_snapshot)

    def send_pages(
        self,
        request: PageRequest,
        handle: TopicHandle,
        encoding: SubscriptionEncoding,
        *,
        with_history: bool = False,
    ) -> None:
        """
        Send the rows of a topic, page by page, and what happens after that.

        What happens between the pages is sent between them, in `encoding` as they are; and
        `with_history`, what lies between the subscriber's cursor and the rows is sent before them.
        """
        self.cancel()
        self._subscriber.encoding = encoding
        self._start(partial(self._send_pages, request, handle, encoding, with_history))

    def resume_writing(self) -> None:
        """Go on: the client has read what was written."""
        if self._resumed is not None and not self._resumed.done():
            self._resumed.set_result(None)

    def cancel(self) -> None:
        """Give up what is being sent: from now on its outcome makes no difference."""
        # Not by the task: it may end after another one has begun.
        self._subscriber.encoding = self._encoding
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _report(self, text: str, error: BaseException) -> None:
        self._sources.problems.report("catch-up", text, unexpected=error)

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._task = asyncio.create_task(self._run(work), name="catch-up")

    async def _run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """
        Do the work; any failure closes the connection.

        A `CancelledError` that was not requested of this task does so too: a connection of the pool
        may raise it for its former query. Otherwise the client would get nothing more.
        """
        finish: Callable[[], None] | None = None
        try:
            await work()
        except CursorLost as lost:
            # Its traceback would refer to this frame in turn.
            finish = partial(self._on_gap, lost.with_traceback(None))
        except ConnectionEnded as reason:
            finish = partial(self._close, reason.close_code, str(reason))
        except asyncio.CancelledError as error:
            if is_cancelled():
                raise
            self._report("was cancelled from elsewhere", error)
            finish = partial(
                self._close, CloseCode.LOG_UNAVAILABLE, "the log cannot be read at the moment"
            )
        except Exception as error:
            self._report(f"failed: {type(error).__name__}: {error}", error)
            finish = partial(self._close, CloseCode.INTERNAL_ERROR, "internal error")
        if self._task is asyncio.current_task():
            self._task = None
            if finish is not None:
                finish()

    async def _read_log(self) -> None:
        """
        Send from the log what the ring does not hold, up to where it begins.

        Page by page, as the client reads them; other clients that resume read the same pages.
        """
        hub, subscriber = self._sources.hub, self._subscriber
        while not hub.resume(subscriber):
            if subscriber.cursor.place >= hub.cursor.place:
                await self._wait_for_hub()
                return
            await self._send_batch(await self._sources.history.after(subscriber.cursor))

    async def _send_batch(self, batch: Batch) -> None:
        events = batch.events
        while events:
            events = events[await self._send_some(events) :]
        await self._write([], batch.cursor)

    async def _send_some(self, events: Sequence[Event]) -> int:
        """Write the first of some events, as many as fit, and return how many that are."""
        subscriber = self._subscriber
        # Anew each time: while the client reads, its subscriptions may change.
        encode = subscriber.encoding.encoder(events, subscriber.subscriptions, subscriber.user)
        frames: list[bytes] = []
        size = 0
        for number, event in enumerate(events, start=1):
            for frame in encode(event):
                frames.append(frame)
                size += len(frame)
            self._sources.hub.caches.looked_into(event)
            if subscriber.subscriptions.resets(event):
                await self._write(frames, event.cursor)
                if subscriber.reload:
                    subscriber.reload([event])
                    await asyncio.sleep(0)  # it may have cancelled this task, in favour of the rows
                return number
            if size >= CHUNK_BYTES:
                await self._write(frames, event.cursor)
                return number
        await self._write(frames, events[-1].cursor)
        return len(events)

    async def _wait_for_hub(self) -> None:
        """Let the hub go on at a cursor that it has not reached, if the log knows it."""
        # Before the log is asked: what reaches the hub meanwhile has to be sent already.
        self._sources.hub.resume_once_reached(self._subscriber)
        if not await self._sources.history.holds(self._subscriber.cursor):
            raise CursorLost(f"the log does not know {self._subscriber.cursor}")

    async def _send_snapshot(self) -> None:
        await self._send_rows()
        await self._read_log()

    async def _send_rows(self) -> None:
        """Send a snapshot, part by part, as the client reads them."""
        subscriber = self._subscriber
        wanted = subscriber.subscriptions
        snapshot = await self._sources.read_snapshot(wanted.channels, wanted.rows)
        try:
            async with asyncio.timeout(snapshot.read_seconds):
                now = datetime.now(UTC)
                for frame in subscriber.encoding.encode_snapshot(snapshot, wanted, now):
                    await self._write([frame], subscriber.cursor)
        except TimeoutError:
            seconds = snapshot.read_seconds
            raise SlowConsumer(f"the snapshot was not read within {seconds:.0f} s") from None
        subscriber.cursor = snapshot.cursor

    async def _send_pages(
        self,
        request: PageRequest,
        handle: TopicHandle,
        encoding: SubscriptionEncoding,
        with_history: bool,
    ) -> None:
        subscriber, hub = self._subscriber, self._sources.hub
        # As slowly as the client reads: a page that is read meanwhile would have to wait for it.
        if with_history and subscriber.cursor.place < hub.cursor.place:
            await self._send_up_to(hub.cursor)
        with_changes = with_history or request.limit is not None
        page = await self._send_page(request, handle, encoding, with_changes)
        while page.end is not None:
            request = replace(request, after=page.end)
            page = await self._send_page(request, handle, encoding, with_changes)
        await self._write([encoding.encode_snapshot_end(handle, page.cursor)], page.cursor)
        self._subscriber.encoding = self._encoding
        await self._read_log()

    async def _send_page(
        self,
        request: PageRequest,
        handle: TopicHandle,
        encoding: SubscriptionEncoding,
        with_changes: bool,
    ) -> Page:
        """Send a page: `with_changes`, after everything that happened before its moment."""
        await self._until_writable()
        page = await self._sources.read_page(request)
        try:
            async with asyncio.timeout(page.read_seconds):
                if with_changes:
                    await self._send_up_to(page.cursor)
                for frame in encoding.encode_page(handle, page):
                    await self._write([frame], self._subscriber.cursor)
        except TimeoutError:
            seconds = page.read_seconds
            raise SlowConsumer(f"a page was not read within {seconds:.0f} s") from None
        return page

    async def _send_up_to(self, place: Cursor) -> None:
        """Send from the ring, or from the log, what happened up to a place, and nothing after."""
        subscriber, hub = self._subscriber, self._sources.hub
        if subscriber.cursor.place > place.place:
            raise CursorLost(f"{place} lies before {subscriber.cursor}")
        await self._until_reached(place)
        while subscriber.cursor.place < place.place:
            events = hub.missed(subscriber.cursor, place)
            end = events[-1].cursor if events else place
            if events is None:
                batch = await self._sources.history.after(subscriber.cursor)
                end = min(batch.cursor, place, key=lambda cursor: cursor.place)
                events = [one for one in batch.events if one.place <= place.place]
            await self._send_batch(Batch(tuple(events), end))

    async def _until_reached(self, place: Cursor) -> None:
        """Wait until the hub has come as far as a tick that was just cut, but not for long."""
        hub = self._sources.hub
        if hub.cursor.place >= place.place:
            return
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def look() -> None:
            if hub.cursor.place >= place.place and not reached.done():
                reached.set_result(None)

        hub.after_delivery.add(look)
        try:
            await asyncio.wait((reached,), timeout=REACH_SECONDS)
        finally:
            hub.after_delivery.discard(look)

    async def _until_writable(self) -> None:
        while self._subscriber.is_paused:
            self._resumed = asyncio.get_running_loop().create_future()
            await self._resumed

    async def _write(self, frames: list[bytes], after: Cursor) -> None:
        """Write what leads up to a place, once the client has read what was written before."""
        await self._until_writable()
        if frames:
            chunk = b"".join(frames)
            self._sources.hub.traffic.add(len(frames), len(chunk))
            self._transport.write(chunk)
            await asyncio.sleep(0)  # other clients' turn
        self._subscriber.cursor = after


def is_cancelled() -> bool:
    """
    Return True if the present task was cancelled: a `CancelledError` may come from elsewhere.

    A cancelled task keeps its error, which keeps the frames that it passed. With the task in a
    variable of one of them it would be a cycle, and the rows of its snapshot would take memory
    until the garbage is collected.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
