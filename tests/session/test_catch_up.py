"""What a client is sent while its session reads the log, with a hub to which the test delivers."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import asyncpg
import orjson
import pytest
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect

from brain.database.connection import opened_pool
from brain.database.history import HistoryReader
from brain.database.single_flight import SingleFlight
from brain.database.snapshot import SnapshotReader
from brain.database.table_access import TableAccess
from brain.message.base_format import BaseFormat
from brain.message.commands import Reply
from brain.message.cursor import Cursor
from brain.message.encodings import encoding_of
from brain.message.event import Batch
from brain.message.subscription_set import subscription_set
from brain.session.catch_up import CatchUp
from brain.session.command_queue import CommandQueue
from brain.session.sources import Sources
from brain.transport.asgi import AsgiWebSocket
from tests.raw_websocket import (
    SMALL_BUFFER_BYTES,
    after_handshake,
    close_code,
    connected_to,
    handshake,
    split_frames,
)
from tests.transport.served import application, new_hub, served

LARGE = """
    CREATE TABLE large (id int PRIMARY KEY, value text);
    INSERT INTO large SELECT number, repeat('x', 1000) FROM generate_series(1, 20000) number;
    SELECT brain.watch('large', 'large', '{id,value}');
"""


@pytest.fixture
def without_collections() -> Iterator[None]:
    """Free only what nothing refers to."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize(
    ("query", "types"), [("", ["reset"]), ("&snapshot", ["reset", "snapshot"])]
)
async def test_a_client_whose_history_is_lost_while_its_cursor_is_looked_up_is_reset_once(
    database: str, connection: asyncpg.Connection, query: str, types: list[str]
) -> None:
    hub = new_hub()
    async with (
        opened_pool(database) as pool,
        served(application(hub, pool)) as (port, _),
        asyncio.timeout(30),
    ):
        url = f"ws://127.0.0.1:{port}/ws?cursor={Cursor(9, 5)}{query}"
        async with connect(url, proxy=None, compression=None) as client:
            async with connection.transaction():
                await connection.execute("LOCK TABLE brain.ticks")
                assert orjson.loads(await client.recv())["type"] == "connected"
                while not hub.statistics().lagging:
                    await asyncio.sleep(0.01)
                hub.deliver(Batch((), Cursor(0, 9), follows=False))
            while any(task.get_name() == "catch-up" for task in asyncio.all_tasks()):
                await asyncio.sleep(0.01)

            await client.send("{}")
            received = [orjson.loads(await client.recv())["type"] for _ in (*types, "echo")]
            assert received == [*types, "echo"]


@pytest.mark.parametrize("query", ["?cursor=9.5.1", "?snapshot", "?snapshot&cursor=no"])
async def test_a_socket_that_closes_before_its_catch_up_begins_leaves_no_coroutine_unawaited(
    database: str, query: str, recwarn: pytest.WarningsRecorder
) -> None:
    hub = new_hub()
    async with (
        opened_pool(database) as pool,
        served(application(hub, pool)) as (port, server),
        asyncio.timeout(30),
    ):
        for _ in range(20):
            async with connected_to(port) as raw:
                await raw.send(handshake(f"/ws{query}"))
                raw.reset()
        while server.server_state.connections or hub.statistics().subscribers:
            await asyncio.sleep(0.01)
        while any(task.get_name() == "catch-up" for task in asyncio.all_tasks()):
            await asyncio.sleep(0.01)
        gc.collect()
    assert [each for each in recwarn if "never awaited" in str(each.message)] == []


@pytest.mark.usefixtures("without_collections")
async def test_a_client_that_reads_a_snapshot_drop_by_drop_keeps_it_for_a_time_only(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.database.snapshot.READ_SECONDS", 0.4)
    monkeypatch.setattr("brain.database.snapshot.LEAST_BYTES_PER_SECOND", 1e12)
    await connection.execute(LARGE)
    snapshots = SnapshotReader(TableAccess(50_000_000))
    memory = snapshots._access.memory
    async with (
        opened_pool(database) as pool,
        served(application(new_hub(), pool, snapshots=snapshots)) as (port, _),
        asyncio.timeout(60),
        connected_to(port) as raw,
    ):
        await raw.send(handshake("/ws?channel=large&snapshot"))
        received = bytearray()
        while memory.free == memory.most_bytes:
            await asyncio.sleep(0.01)
        while memory.free < memory.most_bytes:
            received += await raw.receive(1000)
            await asyncio.sleep(0.001)
        assert len(received) < 10_000_000  # half of it
        while not received.endswith(b"the snapshot was not read within 0 s"):
            data = await raw.receive()
            assert data
            received += data
        frames, _ = split_frames(after_handshake(bytes(received)) or b"")
        assert close_code(frames[-1]) == 4008


async def until_none_runs(name: str) -> None:
    """Wait until no task has this name."""
    while any(task.get_name() == name for task in asyncio.all_tasks()):
        await asyncio.sleep(0.01)


@pytest.mark.usefixtures("without_collections")
async def test_a_client_that_drops_in_the_middle_of_a_snapshot_gives_back_its_memory_at_once(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(LARGE)
    snapshots = SnapshotReader(TableAccess(50_000_000))
    memory = snapshots._access.memory
    async with (
        opened_pool(database) as pool,
        served(application(new_hub(), pool, snapshots=snapshots)) as (port, _),
        asyncio.timeout(60),
        connected_to(port, SMALL_BUFFER_BYTES) as raw,
    ):
        await raw.send(handshake("/ws?channel=large&snapshot"))
        while memory.free == memory.most_bytes:
            await asyncio.sleep(0.01)
        await until_none_runs("snapshot")
        assert memory.free < memory.most_bytes
        raw.reset()
        await until_none_runs("catch-up")
        assert memory.free == memory.most_bytes


@pytest.mark.usefixtures("without_collections")
async def test_a_client_that_drops_while_its_snapshot_is_read_gives_back_its_memory_then(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(LARGE)
    snapshots = SnapshotReader(TableAccess(50_000_000))
    memory = snapshots._access.memory
    async with (
        opened_pool(database) as pool,
        served(application(new_hub(), pool, snapshots=snapshots)) as (port, _),
        asyncio.timeout(60),
        connected_to(port) as raw,
    ):
        async with connection.transaction():
            await connection.execute("LOCK TABLE large")
            await raw.send(handshake("/ws?channel=large&snapshot"))
            while not any(task.get_name() == "snapshot" for task in asyncio.all_tasks()):
                await asyncio.sleep(0.01)
            raw.reset()
            await until_none_runs("catch-up")
        await until_none_runs("snapshot")
        assert memory.releases
        assert memory.free == memory.most_bytes


async def test_what_is_begun_and_given_up_at_once_leaves_no_coroutine_unawaited(
    recwarn: pytest.WarningsRecorder,
) -> None:
    """A task that is cancelled before its first step must not hold a coroutine of its own."""
    before = asyncio.all_tasks()
    hub = new_hub()
    sources = Sources(hub, cast(HistoryReader, None), cast(Any, None))
    transport = AsgiWebSocket(cast(WebSocket, None), unread_timeout_seconds=1)
    subscriber = hub.subscribe(
        encoding_of(BaseFormat(), transport.framing),
        subscription_set(frozenset()),
        transport,
        lambda reason: None,
        after=Cursor(9, 5),
    )
    catch_up = CatchUp(
        subscriber, sources, transport, on_gap=print, close=lambda code, reason: None
    )
    catch_up.send_rows()
    catch_up.resume()
    catch_up.cancel()
    commands = CommandQueue(cast(Any, None), on_empty=print, on_failure=print)
    commands.add(Reply("never sent"))
    commands.cancel()
    single: SingleFlight[int, None] = SingleFlight("single")
    waiting = asyncio.create_task(single.run(1, partial(asyncio.sleep, 0)))
    waiting.cancel()
    while asyncio.all_tasks() - before:
        await asyncio.sleep(0)
    gc.collect()
    assert [each for each in recwarn if "never awaited" in str(each.message)] == []
