"""A database with watched tables is dumped, and restored into another server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest

from brain.database.log import Log
from brain.database.migrations import migrate
from brain.embedded.binaries import Binaries
from brain.errors import CursorLost
from brain.message.cursor import Cursor
from tests.database.log_reading import events_after, keys, parsed, reading
from tests.database.servers import binaries_of, new_server, run
from tests.end_to_end.brain import brain, message, running_brain
from tests.postgres import as_role, named, new_database, ordinary_role
from tests.schemas import every_schema
from tests.tasks import insert

pytestmark = pytest.mark.postgres_versions

# Begins and commits the given number of transactions.
BURN = """
    DO $$ BEGIN FOR i IN 1..{} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$
"""
WATCHED = """
    CREATE TABLE things (id int, at date, a text, PRIMARY KEY (at, id)) PARTITION BY RANGE (at);
    CREATE TABLE things_2026 PARTITION OF things FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    SELECT brain.watch('things', 'things', '{id,a}', '{"insert": "thing_made"}', 'deferred', true);
    CREATE TABLE others ("the 'id'" int PRIMARY KEY);
    SELECT brain.watch('others', 'some others', '{the ''id''}');
    INSERT INTO things VALUES (1, '2026-05-01', 'a');
    INSERT INTO others VALUES (1);
"""


class Places(NamedTuple):
    """Cursors of the database that was dumped."""

    early: Cursor
    """Before the task `before`, which is in the dump."""
    late: Cursor
    """After everything in the dump."""
    lost: Cursor
    """Of a tick that was cut after the dump."""


class Servers(NamedTuple):
    """URLs of two servers for one ordinary role; `behind` has run fewer transactions."""

    ahead: str
    behind: str
    binaries: Binaries


@pytest.fixture(scope="module")
async def servers(postgres: str, template: str) -> AsyncIterator[Servers]:
    async with ordinary_role(postgres, "CREATEDB") as (role, administrator):
        binaries = await binaries_of(postgres)
        with new_server(binaries) as server:
            other = await asyncpg.connect(server.url)
            await other.execute("CREATE ROLE brain_owner NOLOGIN; CREATE ROLE brain_reader NOLOGIN")
            await other.execute(f"CREATE ROLE {role} LOGIN CREATEDB")
            for connection in (administrator, other):
                await connection.execute(f"GRANT brain_owner, brain_reader TO {role}")
            count = await transactions(other) + 3000 - await transactions(administrator)
            await administrator.execute(BURN.format(max(count, 0)))
            yield Servers(as_role(postgres, role), as_role(server.url, role), binaries)
            await other.close()


async def transactions(connection: asyncpg.Connection) -> int:
    id = await connection.fetchval("SELECT pg_current_xact_id()::text::bigint")
    assert isinstance(id, int)
    return id


@asynccontextmanager
async def restored(
    servers: Servers, file: Path, source: str, target: str, format: str = "plain"
) -> AsyncIterator[tuple[str, Places]]:
    """Dump a database with watched tables from one server, and yield it restored into another."""
    async with empty_database(source) as url:
        places = await fill_and_dump(servers, url, file, format)
    async with empty_database(target) as url:
        if format == "plain":
            run(servers.binaries, "psql", "-X", "-v", "ON_ERROR_STOP=1", "-f", file, "-d", url)
        else:
            run(servers.binaries, "pg_restore", "--exit-on-error", "-d", url, file)
        yield url, places


@asynccontextmanager
async def empty_database(server: str) -> AsyncIterator[str]:
    async with new_database(named(server, "postgres")) as url:
        yield url


async def fill_and_dump(servers: Servers, url: str, file: Path, format: str) -> Places:
    await migrate(url, every_schema())
    connection = await asyncpg.connect(url)
    async with reading(url) as log:
        await connection.execute(WATCHED)
        early = await log.tick()
        await insert(connection, "before")
        late = await log.tick()
        run(servers.binaries, "pg_dump", f"--format={format}", "-f", file, "-d", url)
        await insert(connection, "lost")
        lost = await log.tick()
    await connection.close()
    return Places(early, late, lost)


async def keys_after(log: Log, cursor: Cursor) -> list[Any]:
    return keys(await events_after(log, cursor))


@pytest.mark.parametrize("format", ["plain", "custom"])
async def test_what_was_watched_is_watched_after_a_restore(
    tmp_path: Path, servers: Servers, format: str
) -> None:
    async with restored(servers, tmp_path / "dump", servers.ahead, servers.behind, format) as (
        url,
        _,
    ):
        dry_run = await brain("migrate", "--dry-run", "--database-url", url)
        assert dry_run.stdout.strip() == "nothing to apply"
        connection = await asyncpg.connect(url)
        watches = await connection.fetch("SELECT channel, problems FROM brain.watches ORDER BY 1")
        async with reading(url) as log:
            start = await log.tick()
            await connection.execute("INSERT INTO things_2026 VALUES (2, '2026-06-01', 'b')")
            await connection.execute("INSERT INTO others VALUES (2)")
            events = await events_after(log, start)
        await connection.close()
    assert {"some others", "tasks", "things"} <= {watch["channel"] for watch in watches}
    assert [watch for watch in watches if watch["problems"]] == []
    assert [(event.channel, event.type, parsed(event.key)) for event in events] == [
        ("things", "thing_made", ["2026-06-01", 2]),
        ("some others", None, [2]),
    ]


async def test_below_the_former_transaction_ids_a_new_history_begins(
    tmp_path: Path, servers: Servers
) -> None:
    async with (
        restored(servers, tmp_path / "dump", servers.ahead, servers.behind) as (url, places),
        reading(url) as log,
    ):
        connection = await asyncpg.connect(url)
        start = await log.tick()
        assert start.tick > places.late.tick
        for place in places:
            with pytest.raises(CursorLost):
                await log.newest(place)
        await insert(connection, "after")
        assert await keys_after(log, start) == [["after"]]
        await connection.close()


async def test_a_client_of_the_former_history_gets_reset(tmp_path: Path, servers: Servers) -> None:
    async with (
        restored(servers, tmp_path / "dump", servers.ahead, servers.behind) as (url, places),
        running_brain(tmp_path, "--database-url", url) as node,
    ):
        connection = await asyncpg.connect(url)
        for place in places:
            async with node.client(f"/ws?cursor={place}") as client:
                assert (await message(client))["type"] == "reset"
                await insert(connection, f"after {place}")
                assert (await message(client))["data"]["id"] == f"after {place}"
        await connection.close()


async def test_no_cursor_skips_events_if_the_transaction_ids_are_passed_before_the_first_read(
    tmp_path: Path, servers: Servers
) -> None:
    """Events with transaction ids that the former history used do not count as read."""
    async with (
        restored(servers, tmp_path / "dump", servers.ahead, servers.behind) as (url, places),
        reading(url) as log,
    ):
        connection = await asyncpg.connect(url)
        await insert(connection, "written below")
        await connection.execute(BURN.format(6000))
        for place in places:
            with pytest.raises(CursorLost):
                await log.newest(place)
        await connection.close()


@pytest.mark.parametrize("written", [0, 1])
async def test_in_another_server_of_higher_transaction_ids_no_cursor_is_good_either(
    tmp_path: Path, servers: Servers, written: int
) -> None:
    async with (
        restored(servers, tmp_path / "dump", servers.behind, servers.ahead) as (url, places),
        reading(url) as log,
    ):
        connection = await asyncpg.connect(url)
        await insert(connection, *["unseen"][:written])
        for place in places:
            with pytest.raises(CursorLost):
                await log.newest(place)
        start = await log.tick()
        await insert(connection, "after")
        assert await keys_after(log, start) == [["after"]]
        await connection.close()


async def test_in_the_server_of_the_dump_the_cursors_that_it_has_go_on(
    tmp_path: Path, servers: Servers
) -> None:
    async with (
        restored(servers, tmp_path / "dump", servers.ahead, servers.ahead) as (url, places),
        reading(url) as log,
    ):
        connection = await asyncpg.connect(url)
        after = []
        for id in ("one", "two", "three"):
            await insert(connection, id)
            after.append([id])
            assert await keys_after(log, places.early) == [["before"], *after]
            assert await keys_after(log, places.late) == after
            with pytest.raises(CursorLost):
                await log.newest(places.lost)
        await connection.close()
