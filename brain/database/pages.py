"""Reads pages of watched tables for clients, many of them at one place in the log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Mapping, Sequence
from functools import partial

import asyncpg

from brain.database.budget import Locked, QueryFailed, TooSlow, concerning
from brain.database.memory import NoMemory
from brain.database.page_reading import PageReading
from brain.database.page_statement import PageStatements
from brain.database.table_access import TableAccess, Tables
from brain.errors import BrainError, CursorLost, FilterRefused, LogUnavailable, SnapshotTooLarge
from brain.message.page import Page, PageRequest

# When less than this part of its time is left, a batch ends: the other pages are of the next one.
LEAST_PART = 0.5
# How many pages one query asks for, as long as none fails, and their bytes, as far as the pages
# before them tell.
MOST_TOGETHER = 50
MOST_TOGETHER_BYTES = 4 * 1024 * 1024

Waiting = dict[PageRequest, "WantedPage"]


class WantedPage:
    """A page that clients wait for."""

    def __init__(self) -> None:
        self.clients: list[asyncio.Future[Page]] = []
        self.give_up_at: float | None = None
        """Until when it waits for memory."""

    @property
    def is_awaited(self) -> bool:
        return any(not client.done() for client in self.clients)

    def finish(self, page: Page) -> None:
        for client in self.clients:
            if not client.done():
                client.set_result(page)

    def fail(self, error: BaseException) -> None:
        for client in self.clients:
            if not client.done():
                client.set_exception(error)


class Group:
    """What is read in batches of its own: the pages of a channel, or those that are slow alike."""

    def __init__(self, name: Hashable) -> None:
        self.name = name
        self.waiting: Waiting = {}
        self.together = 1
        """So many pages are asked for by one query: more after a quick one, fewer after another."""

    def add(self, request: PageRequest, wanted: WantedPage) -> None:
        if request in self.waiting:
            self.waiting[request].clients += wanted.clients
        else:
            self.waiting[request] = wanted

    def take(self) -> Waiting:
        """Return the pages that clients wait for, to be put back as far as they are not read."""
        batch, self.waiting = self.waiting, {}
        return awaited_in(batch)

    def put_back(self, batch: Waiting) -> None:
        """Have what was not read come first."""
        others, self.waiting = self.waiting, awaited_in(batch)
        for request, wanted in others.items():
            self.add(request, wanted)

    def fail(self, error: BaseException) -> None:
        for wanted in self.waiting.values():
            wanted.fail(error)


class PageReader:
    """
    Reads pages in batches: one tick, and one transaction, for all pages of a channel that clients
    ask for while the batch before is read. Equal pages are read once.

    A page that takes long is read apart from the others of its channel, and holds up none.
    """

    def __init__(self, access: TableAccess) -> None:
        self._access = access
        self.statements = PageStatements()
        self._groups: dict[Hashable, Group] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.ticks = 0
        """How many were cut."""
        self.pages = 0
        """How many were read."""

    async def read(self, pool: asyncpg.Pool, request: PageRequest) -> Page:
        """
        Return a page, at a tick that is cut after this call.

        Raises `SnapshotTooLarge`, `LogUnavailable`, and `CursorLost` if the page cannot follow the
        one before.
        """
        client: asyncio.Future[Page] = asyncio.get_running_loop().create_future()
        wanted = WantedPage()
        wanted.clients.append(client)
        self._add(pool, request, wanted)
        try:
            return await client
        finally:
            client.cancel()

    def _add(self, pool: asyncpg.Pool, request: PageRequest, wanted: WantedPage) -> None:
        """Have a page read in the next batch."""
        name = name_of(request)
        if not self._access.lanes.is_slow(name):
            name = "pages", request.channel
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = Group(name)
            task = asyncio.create_task(self._run(pool, group), name="pages")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        group.add(request, wanted)

    async def _run(self, pool: asyncpg.Pool, group: Group) -> None:
        """Read batches as long as clients wait for pages of a group."""
        batch: Waiting = {}
        try:
            while group.waiting:
                await asyncio.sleep(0)  # others may ask meanwhile
                batch = group.take()
                if batch:
                    await self._read_batch(pool, group, batch)
                    group.put_back(batch)
        finally:
            # Otherwise, if this has failed, they would wait for ever.
            group.put_back(batch)
            group.fail(LogUnavailable("the tables cannot be read at the moment"))
            del self._groups[group.name]

    async def _read_batch(self, pool: asyncpg.Pool, group: Group, batch: Waiting) -> None:
        """Read at least one page of a batch, or fail all of it."""
        channel = next(iter(batch)).channel
        try:
            tables = await self._access.watched(pool, frozenset({channel}))
            attempt = partial(self._attempt, pool, tables, group, batch)
            await self._access.run(pool, tables, [group.name], attempt, channel=channel)
        except NoMemory:
            await self._until_memory(batch)
        except BrainError as error:
            for wanted in batch.values():
                wanted.fail(error)

    async def _until_memory(self, batch: Waiting) -> None:
        """Wait until some memory is given back; fail the first page if that takes too long."""
        first = next(iter(awaited_in(batch).values()), None)
        if first is not None:
            first.give_up_at = first.give_up_at or time.monotonic() + self._access.table_seconds
            try:
                await self._access.until_memory(self._access.memory.releases, first.give_up_at)
            except LogUnavailable as error:
                first.fail(error)

    async def _attempt(
        self, pool: asyncpg.Pool, tables: Tables, group: Group, batch: Waiting, seconds: float
    ) -> None:
        """Read pages at one tick, until one fails or most of the time is over."""
        self._access.check_locks(tables)
        channel = next(iter(batch)).channel
        async with self._access.at_tick(pool, tables) as (session, cursor):
            self.ticks += 1
            end_at = time.monotonic() + seconds
            with concerning(channel, seconds):
                table = await self.statements.table(session.connection, channel)
            reading = PageReading(session, self.statements, table, cursor, self._access.memory)
            is_going_on = True
            while is_going_on and (awaited := awaited_in(batch)):
                requests = list(awaited)[: group.together]
                left = min(end_at - time.monotonic(), self._access.table_seconds)
                if len(requests) > 1:
                    found = await self._read_together(group, reading, requests, left)
                else:
                    found = await self._read_one(pool, group, reading, batch, requests[0], left)
                for request, page in found.items():
                    batch[request].finish(page)
                self.pages += len(found)
                is_going_on = bool(found) and end_at - time.monotonic() > LEAST_PART * seconds

    async def _read_together(
        self, group: Group, reading: PageReading, requests: Sequence[PageRequest], seconds: float
    ) -> Mapping[PageRequest, Page]:
        begun_at = time.monotonic()
        group.together = max(1, len(requests) // 4)  # unless it succeeds
        found = await reading.read_together(requests, seconds)
        size = sum(page.size_bytes for page in found.values())
        if found and size <= MOST_TOGETHER_BYTES:
            is_quick = time.monotonic() - begun_at < seconds / 8
            grows = is_quick and size <= MOST_TOGETHER_BYTES / 4
            group.together = min(len(requests) * (2 if grows else 1), MOST_TOGETHER)
        return found

    async def _read_one(
        self,
        pool: asyncpg.Pool,
        group: Group,
        reading: PageReading,
        batch: Waiting,
        request: PageRequest,
        seconds: float,
    ) -> Mapping[PageRequest, Page]:
        """Return a page alone; nothing if that fails, which concerns only its clients."""
        wanted = batch[request]
        group.together = 2
        try:
            return {request: await reading.read(request, seconds)}
        except Locked:
            raise
        except TooSlow as error:
            name = name_of(request)
            if group.name == name:
                wanted.fail(self._access.unreadable(request.channel, error))
            else:
                self._access.lanes.add_slow(name)
                del batch[request]
                self._add(pool, request, wanted)
        except QueryFailed as error:
            wanted.fail(self._access.unreadable(request.channel, error))
        except FilterRefused as error:
            wanted.fail(LogUnavailable(str(error)))
        except (SnapshotTooLarge, CursorLost) as error:
            wanted.fail(error)
        return {}


def awaited_in(batch: Waiting) -> Waiting:
    """Return those pages of a batch that clients still wait for."""
    return {request: wanted for request, wanted in batch.items() if wanted.is_awaited}


def name_of(request: PageRequest) -> Hashable:
    """Return what is slow if a page is."""
    is_whole = request.limit is None
    return "page", request.channel, request.allowed, request.condition, request.key, is_whole
