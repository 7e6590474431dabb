"""Two versions of Brain on one database: what an operator does in a rolling upgrade."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from websockets.asyncio.client import ClientConnection

import brain as package
from tests.clients.orders import ORDERS
from tests.end_to_end.brain import (
    PATIENCE_SECONDS,
    RunningBrain,
    brain,
    get,
    logged,
    message,
    running_brain,
)
from tests.end_to_end.other_versions import NEWER_BODY, newer_version

pytestmark = [pytest.mark.postgres_versions, pytest.mark.timeout(300)]

VERSION = package.__version__
ROWS = 40
LAST = 99


@pytest.fixture
async def orders(core_database: str) -> str:
    """The URL of a database with a watched table."""
    await execute(core_database, ORDERS)
    return core_database


async def execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def value(url: str, sql: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def write(url: str, stop: asyncio.Event) -> list[int]:
    """Insert a row every few milliseconds until `stop`; return all ids."""
    connection = await asyncpg.connect(url)
    written: list[int] = []
    try:
        while not stop.is_set() or len(written) < ROWS:
            written.append(100 + len(written))
            await connection.execute("INSERT INTO orders VALUES ($1, 'open')", written[-1])
            await asyncio.sleep(0.005)
    finally:
        await connection.close()
    return written


@asynccontextmanager
async def reading(node: RunningBrain) -> AsyncIterator[asyncio.Task[list[int]]]:
    """Connect a client, and read the ids of the rows that it gets up to the last one."""
    async with node.client("/ws?channel=orders") as client:
        # At once: a client that does not read does not answer pings either.
        task = asyncio.create_task(received(client))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])


async def received(client: ClientConnection) -> list[int]:
    ids: list[int] = []
    while LAST not in ids:
        frame: dict[str, Any] = await message(client)
        ids += [frame["data"]["id"]] if "data" in frame and "id" in frame["data"] else []
    return ids


async def test_two_versions_serve_one_database_and_clients_of_both_get_every_change(
    orders: str, tmp_path: Path
) -> None:
    newer = newer_version(tmp_path / "newer")
    url, systems = ("--database-url", orders), {"BRAIN_SYSTEMS": ""}
    for name in ("old", "new", "again"):
        (tmp_path / name).mkdir()
    stop = asyncio.Event()
    async with running_brain(tmp_path / "old", *url, **systems) as old:
        async with reading(old) as of_old:
            writing = asyncio.create_task(write(orders, stop))
            planned = await brain("migrate", "--plan", *url, **newer)
            assert planned.status == 6
            assert "processes that serve it now: 1\n" in planned.stdout
            assert "brain.events_3 (ACCESS EXCLUSIVE)" in planned.stdout
            assert f"Nodes of Brain {VERSION} go on serving" in planned.stdout
            migrated = await brain("migrate", *url, **newer)
            assert (migrated.status, migrated.stderr) == (0, "")
            assert "applied  brain 0001_note\napplied  brain\n" in migrated.stdout
            async with (
                running_brain(tmp_path / "new", *url, **systems, **newer) as new,
                # An old node that is restarted in the middle.
                running_brain(tmp_path / "again", *url, **systems) as again,
                reading(new) as of_new,
                reading(again) as of_again,
            ):
                first = await value(orders, "SELECT max(id) FROM orders")
                assert isinstance(first, int)
                stop.set()
                written = await writing
                await execute(orders, f"INSERT INTO orders VALUES ({LAST}, 'open')")
                lists = [await ids for ids in (of_old, of_new, of_again)]
                assert f"Brain {VERSION} is ready" in again.output.read_text()
                await logged(
                    again.output,
                    re.compile(rf"migrated by Brain 9\.0\.0 to revision 2, .* Brain {VERSION} "),
                )
                assert "Brain 9.0.0 is ready" in new.output.read_text()
    assert lists[0] == [*written, LAST]
    for ids in lists[1:]:
        assert ids == [id for id in [*written, LAST] if id in ids]  # in order, none twice
        assert {id for id in written if id > first} <= set(ids)
    assert await value(orders, NEWER_BODY) is True
    for version in (newer, {}):
        assert (await brain("migrate", "--plan", *url, **version)).status == 0
    assert "Traceback" not in "".join(file.read_text() for file in tmp_path.glob("*/brain.log"))


async def test_a_version_that_the_schema_no_longer_serves_ends_and_is_refused(
    orders: str, tmp_path: Path
) -> None:
    newer = newer_version(tmp_path / "newer", serves=2)
    url, systems = ("--database-url", orders), {"BRAIN_SYSTEMS": ""}
    way_out = (
        "the database was migrated by Brain 9.0.0, and its schema brain (revision 2) no longer "
        f"serves this Brain {VERSION} (revision 1): install Brain 9.0.0 or newer"
    )
    async with running_brain(tmp_path, *url, **systems) as old:
        planned = await brain("migrate", "--plan", "--json", *url, **newer)
        assert planned.status == 7
        plan = json.loads(planned.stdout)
        assert (plan["nodes_go_on"], plan["serving_nodes"]) == (False, 1)
        assert [step["name"] for step in plan["steps"]] == ["brain 0001_note", "brain"]
        for attempt in (("serve", "--port", "0"), ("migrate", "--spare-nodes")):
            spared = await brain(*attempt, *url, **systems, **newer)
            assert spared.status == 1
            assert "1 processes serve" in spared.stderr and "stop them first" in spared.stderr
        assert (await get(f"{old.http}/readyz"))[0] == 200

        async with old.client("/ws?channel=orders") as client:
            assert (await brain("migrate", *url, **newer)).status == 0
            async with asyncio.timeout(PATIENCE_SECONDS):
                await client.wait_closed()
            assert client.close_code == 1012
        assert await old.stopped() == 1
        assert way_out in old.output.read_text()

    for command in (
        ("serve", "--port", "0"),
        ("serve", "--port", "0", "--no-migrate"),
        ("watches",),
    ):
        refused = await brain(*command, *url, **systems)
        assert (refused.status, refused.stderr) == (1, f"brain: {way_out}\n")
    assert await value(orders, NEWER_BODY) is True
