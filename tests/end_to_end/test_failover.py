"""A streaming standby takes over from a primary that died."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError

from brain.database.log import Log
from brain.database.migrations import migrate
from brain.errors import CursorLost
from brain.message.cursor import Cursor
from tests.database.log_reading import events_after, keys, reading
from tests.database.servers import Server, binaries_of, new_server, standby_of
from tests.end_to_end.brain import PATIENCE_SECONDS, RunningBrain, message, running_brain
from tests.schemas import every_schema
from tests.tasks import insert

pytestmark = pytest.mark.postgres_versions


@dataclass(frozen=True)
class Pair:
    """A primary, and the standby that streams from it."""

    primary: Server
    standby: Server

    @property
    def url(self) -> str:
        """Names both servers; Brain connects to the one that is the primary."""
        return f"postgresql://postgres@{self.primary.address},{self.standby.address}/postgres"

    async def catch_up(self) -> None:
        """Return once the standby has replayed everything."""
        async with connected(self.primary) as primary, connected(self.standby) as standby:
            end = await primary.fetchval("SELECT pg_current_wal_lsn()::text")
            await until(standby, f"pg_last_wal_replay_lsn() >= '{end}'")

    async def part(self) -> None:
        """Stop the replication to the standby."""
        async with connected(self.standby) as standby:
            await standby.execute("ALTER SYSTEM SET primary_conninfo = ''")
            await standby.execute("SELECT pg_reload_conf()")
            await until(standby, "NOT EXISTS (SELECT FROM pg_stat_wal_receiver)")

    async def fail_over(self) -> None:
        self.primary.die()
        async with connected(self.standby) as standby:
            assert await standby.fetchval("SELECT pg_promote()")


@pytest.fixture
async def pair(postgres: str) -> AsyncIterator[Pair]:
    with new_server(await binaries_of(postgres)) as primary:
        await migrate(primary.url, every_schema())
        with standby_of(primary) as standby:
            yield Pair(primary, standby)


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(server.url)
    try:
        yield connection
    finally:
        await connection.close()


async def until(connection: asyncpg.Connection, condition: str) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await connection.fetchval(f"SELECT {condition}"):
            await asyncio.sleep(0.02)


async def keys_after(log: Log, cursor: Cursor) -> list[Any]:
    return keys(await events_after(log, cursor))


async def cursors(server: Server, *ids: str) -> list[Cursor]:
    """Insert tasks, and cut a tick after each; return the cursors."""
    async with connected(server) as connection, reading(server.url) as log:
        found = []
        for id in ids:
            await insert(connection, id)
            found.append(await log.tick())
        return found


@asynccontextmanager
async def resumed(brain: RunningBrain, cursor: str = "") -> AsyncIterator[ClientConnection]:
    url = f"ws://localhost:{brain.port}/ws?cursor={cursor}"
    async with connect(url, proxy=None) as client:
        assert (await message(client))["type"] == "connected"
        yield client


async def next_task(client: ClientConnection) -> str:
    id = (await message(client))["data"]["id"]
    assert isinstance(id, str)
    return id


async def test_after_a_failover_that_lost_nothing_every_cursor_goes_on(pair: Pair) -> None:
    places = await cursors(pair.primary, "a", "b", "c")
    await pair.catch_up()
    await pair.fail_over()

    async with connected(pair.standby) as connection, reading(pair.standby.url) as log:
        await insert(connection, "d")
        for place, missed in zip(places, (["b", "c", "d"], ["c", "d"], ["d"]), strict=True):
            assert await keys_after(log, place) == [[id] for id in missed]


async def test_after_a_failover_that_lost_commits_only_their_cursors_are_refused(
    pair: Pair,
) -> None:
    """Also once the ticks of the new primary have passed those cursors."""
    kept = await cursors(pair.primary, "a", "b")
    await pair.catch_up()
    await pair.part()
    lost = await cursors(pair.primary, "lost 1", "lost 2")
    await pair.fail_over()

    async with connected(pair.standby) as connection, reading(pair.standby.url) as log:
        for id in ("c", "d", "e"):
            for place in lost:
                with pytest.raises(CursorLost):
                    await log.newest(place)
            await insert(connection, id)
        assert (await log.tick()).tick > lost[-1].tick
        for place in lost:
            with pytest.raises(CursorLost):
                await log.after(place)
        assert await keys_after(log, kept[0]) == [["b"], ["c"], ["d"], ["e"]]
        assert await keys_after(log, kept[1]) == [["c"], ["d"], ["e"]]


@pytest.mark.one_version
async def test_brain_follows_to_the_new_primary_and_no_client_is_reset_needlessly(
    tmp_path: Path, pair: Pair
) -> None:
    async with running_brain(tmp_path, "--database-url", pair.url) as brain:
        async with brain.client() as plain, resumed(brain) as client:
            await cursors(pair.primary, "a")
            assert [await next_task(each) for each in (plain, client)] == ["a", "a"]
            await pair.catch_up()
            await pair.fail_over()

            async with connected(pair.standby) as connection:
                await insert(connection, "b")
            assert [await next_task(each) for each in (plain, client)] == ["b", "b"]


@pytest.mark.one_version
async def test_brain_follows_to_a_primary_that_lacks_commits_and_sends_reset(
    tmp_path: Path, pair: Pair
) -> None:
    async with running_brain(tmp_path, "--database-url", pair.url) as brain:
        async with brain.client() as plain, resumed(brain) as client:
            await cursors(pair.primary, "kept")
            assert await next_task(plain) == "kept"
            kept = await message(client)
            await pair.catch_up()
            await pair.part()
            await cursors(pair.primary, "lost")
            assert await next_task(plain) == "lost"
            lost = await message(client)
            await pair.fail_over()

            reset = await message(client)
            assert reset["type"] == "reset"
            with pytest.raises(ConnectionClosedError) as closed:
                await message(plain)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 4009
            async with connected(pair.standby) as connection:
                await insert(connection, "new")
            assert await next_task(client) == "new"

        await come_back(brain, kept["cursor"], lost["cursor"])


async def come_back(brain: RunningBrain, kept: str, lost: str) -> None:
    async with resumed(brain, lost) as client:
        assert (await message(client))["type"] == "reset"
    async with resumed(brain, kept) as client:
        assert await next_task(client) == "new"
