"""Writers, readers and sessions that trim, stepped by a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg

from brain.database.connection import connected
from brain.database.log import Log
from brain.database.session_settings import PLANNED_ONCE, session_settings
from brain.database.table_access import tick_at_snapshot
from tests.database.history import NewLog, RacedConnection, Reader, TickAt

PATIENCE_SECONDS = 20.0

ADVANCE = """
    UPDATE tasks SET progress = progress + 1, agent = $2 WHERE id = $1
"""
# Stops here while another session holds the lock.
GATE = (
    "PERFORM set_config('lock_timeout', '0', true), pg_advisory_lock(1), pg_advisory_unlock(1);\n"
)


class Writer:
    """An application. All changes of one transaction have the same signature."""

    def __init__(self, session: asyncpg.Connection, number: int) -> None:
        self.session = session
        self.number = number
        self._transactions = 0

    @property
    def signature(self) -> str:
        return f"{self.number}/{self._transactions}"

    async def advance(self, *ids: str) -> None:
        for id in ids:
            if not self.session.is_in_transaction():
                self._transactions += 1
            await self.session.execute(ADVANCE, id, self.signature)

    async def begin(self, *, early: bool = True) -> None:
        """Begin a transaction; an `early` one gets its id before it writes."""
        self._transactions += 1
        await self.session.execute("BEGIN; SELECT pg_current_xact_id()" if early else "BEGIN")

    async def commit(self) -> None:
        await self.session.execute("COMMIT")


class Stage:
    """A migrated database with the tasks `row` and `other`, and the sessions on it."""

    def __init__(
        self,
        url: str,
        sessions: AsyncExitStack,
        new_log: NewLog,
        tick_at: TickAt,
        *,
        cuts_apart: bool,
    ) -> None:
        self.url = url
        self._cuts_apart = cuts_apart
        self._sessions = sessions
        self._new_log = new_log
        self._tick_at = tick_at
        self._writers = 0

    async def session(self) -> asyncpg.Connection:
        session = await self._sessions.enter_async_context(connected(self.url))
        await session.execute("SET search_path = public, pg_temp")
        return session

    async def writer(self) -> Writer:
        self._writers += 1
        return Writer(await self.session(), self._writers)

    async def reader(self) -> Reader:
        """Return a reader that has begun."""
        session = await self.session()
        tables = await asyncpg.connect(self.url, connection_class=RacedConnection)
        self._sessions.push_async_callback(tables.close)
        settings = session_settings(tables, PLANNED_ONCE)
        await tables.execute(f"{settings} SET search_path = public, pg_temp")
        log = self._new_log(session, PATIENCE_SECONDS)
        reader = Reader(log, session, tables, self._tick_at)
        reader.cuts_apart = self._cuts_apart
        await log.tick()  # which a log does before its first read
        await reader.begin()
        return reader

    def start(self, steps: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start steps that may have to wait; they are cancelled when the stage ends."""
        task = asyncio.create_task(steps)

        async def end() -> None:
            task.cancel()
            await asyncio.wait([task])

        self._sessions.push_async_callback(end)
        return task

    async def waits_or_is_done(self, session: asyncpg.Connection, task: asyncio.Task[Any]) -> None:
        """Wait until another session blocks `session`, or the task is done."""
        async with connected(self.url) as observer, asyncio.timeout(PATIENCE_SECONDS):
            while not task.done() and not await observer.fetchval(
                "SELECT cardinality(pg_blocking_pids($1)) > 0", session.get_server_pid()
            ):
                await asyncio.sleep(0)


@asynccontextmanager
async def staged(
    url: str,
    new_log: NewLog = Log,
    tick_at: TickAt = tick_at_snapshot,
    *,
    cuts_apart: bool = False,
) -> AsyncIterator[Stage]:
    """Yield a stage, and close its sessions afterwards."""
    async with AsyncExitStack() as sessions:
        stage = Stage(url, sessions, new_log, tick_at, cuts_apart=cuts_apart)
        await (await stage.session()).execute("INSERT INTO tasks (id) VALUES ('row'), ('other')")
        yield stage


async def rewrite(session: asyncpg.Connection, function: str, *edits: tuple[str, str]) -> None:
    """Replace texts in a function of Brain's, wherever they occur; each must occur."""
    source: str = await session.fetchval(
        "SELECT pg_get_functiondef($1::text::regproc)", f"brain.{function}"
    )
    for old, new in edits:
        assert old in source, f"{old!r} does not occur in {source}"
        source = source.replace(old, new)
    await session.execute(source)


@asynccontextmanager
async def closed_gate(stage: Stage, function: str, before: str) -> AsyncIterator[None]:
    """Block every caller of `function` at the text `before` until the context ends."""
    session = await stage.session()
    await rewrite(session, function, (before, GATE + before))
    await session.execute("SELECT pg_advisory_lock(1)")
    yield
    await session.execute("SELECT pg_advisory_unlock(1)")
