"""Clients that request cursors, and resume with them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from brain.message.cursor import Cursor
from tests.end_to_end.brain import RunningBrain, message, messages, running_brain
from tests.tasks import insert


@pytest.fixture
def database(shared_database: str) -> str:
    return shared_database


@pytest.fixture
def brain(shared_brain: RunningBrain) -> RunningBrain:
    return shared_brain


@asynccontextmanager
async def resumed(
    brain: RunningBrain, cursor: str = ""
) -> AsyncIterator[tuple[ClientConnection, dict[str, Any]]]:
    """Connect with a cursor; yield the client and its greeting."""
    url = f"ws://localhost:{brain.port}/ws?cursor={quote(cursor)}"
    # Unbounded: a client with a full queue does not read the reply to its close frame.
    async with connect(url, proxy=None, max_queue=None) as client:
        yield client, await message(client)


async def ids(client: ClientConnection, count: int) -> list[str]:
    return [each["data"]["id"] for each in await messages(client, count)]


async def test_every_message_carries_a_cursor_as_its_fourth_key(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    async with resumed(brain) as (client, greeting):
        await client.send("hello")
        echo = await message(client)
        await insert(connection, "a")
        run = await message(client)

    for each, type in ((greeting, "connected"), (echo, "echo"), (run, "run_update")):
        assert list(each) == ["type", "data", "timestamp", "cursor"]
        assert each["type"] == type
        Cursor.parse(each["cursor"])
    assert Cursor.parse(run["cursor"]).place > Cursor.parse(greeting["cursor"]).place


async def test_a_subprotocol_requests_cursors_too(brain: RunningBrain) -> None:
    async with connect(
        f"ws://localhost:{brain.port}/ws",
        subprotocols=[Subprotocol("other"), Subprotocol("brain.cursor")],
        proxy=None,
    ) as client:
        assert client.subprotocol == "brain.cursor"
        greeting = await message(client)
    assert "cursor" in greeting
    assert greeting["data"] == {"message": "Connected to Cecelia Brain"}


@pytest.mark.parametrize("query", ["", "?cursor=", "?snapshot", "?latest=1"])
async def test_every_client_of_a_profile_is_greeted_by_it(brain: RunningBrain, query: str) -> None:
    async with connect(f"ws://localhost:{brain.port}/ws{query}", proxy=None) as client:
        greeting = await message(client)
    assert greeting["data"] == {"message": "Connected to Cecelia Brain"}


async def test_a_plain_client_sees_three_keys_and_no_heartbeat(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    often = {"BRAIN_HEARTBEAT_SECONDS": "0.1"}
    async with running_brain(tmp_path, "--database-url", database, **often) as brain:
        async with brain.client() as plain, resumed(brain) as (client, _):
            heartbeats = await messages(client, 3)
            await insert(connection, "a")

            run = await message(plain)
            assert list(run) == ["type", "data", "timestamp"]
            assert run["type"] == "run_update"
    assert [each["type"] for each in heartbeats] == ["heartbeat"] * 3
    assert [each["data"] for each in heartbeats] == [{}] * 3


async def test_the_cursor_of_a_quiet_connection_moves_on(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    often = {"BRAIN_HEARTBEAT_SECONDS": "0.1"}
    async with running_brain(tmp_path, "--database-url", database, **often) as brain:
        async with resumed(brain) as (client, greeting):
            await connection.execute(
                """
                CREATE TABLE unheard (id int PRIMARY KEY);
                SELECT brain.watch('unheard', 'unheard', '{id}');
                INSERT INTO unheard VALUES (1);
                """
            )
            before = Cursor.parse(greeting["cursor"])
            while Cursor.parse((await message(client))["cursor"]).place <= before.place:
                pass


async def test_a_client_gets_what_it_missed_and_then_what_happens(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    async with resumed(brain) as (client, _):
        await insert(connection, "a", "b")
        first, second = await messages(client, 2)
    await insert(connection, "c")

    for cursor, missed in ((first["cursor"], ["b", "c"]), (second["cursor"], ["c"])):
        async with resumed(brain, cursor) as (client, _):
            assert await ids(client, len(missed)) == missed
    async with resumed(brain, second["cursor"]) as (client, _):
        await insert(connection, "d")
        assert await ids(client, 2) == ["c", "d"]


async def test_a_client_gets_what_it_missed_from_another_brain(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    async with running_brain(tmp_path, "--database-url", database) as brain:
        async with resumed(brain) as (_, greeting):
            cursor = greeting["cursor"]
    await connection.executemany(
        "INSERT INTO tasks (id) VALUES ($1)", [(str(number),) for number in range(2500)]
    )
    async with running_brain(tmp_path, "--database-url", database) as brain:
        await insert(connection, "live")
        async with resumed(brain, cursor) as (client, _):
            assert await ids(client, 2501) == [*map(str, range(2500)), "live"]


async def test_a_large_transaction_is_resumed_in_its_middle_from_the_log(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    async with running_brain(tmp_path, "--database-url", database) as brain:
        async with resumed(brain) as (client, _):
            await connection.execute(
                "INSERT INTO tasks (id) SELECT n::text FROM generate_series(1, 3000) n"
            )
            *_, last = await messages(client, 1234)
    async with running_brain(tmp_path, "--database-url", database) as brain:
        async with resumed(brain, last["cursor"]) as (client, _):
            assert await ids(client, 1766) == [str(n) for n in range(1235, 3001)]


async def test_no_message_carries_a_cursor_ahead_of_what_the_client_was_sent(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    async with running_brain(tmp_path, "--database-url", database) as brain:
        async with resumed(brain) as (_, greeting):
            start = greeting["cursor"]
    await connection.execute("INSERT INTO tasks (id) SELECT n::text FROM generate_series(1, 500) n")
    async with running_brain(tmp_path, "--database-url", database) as brain:
        async with resumed(brain, start) as (client, greeting):
            assert greeting["cursor"] == start
            for _ in range(5):
                await client.send("hello")
            places = [Cursor.parse(each["cursor"]).place for each in await messages(client, 505)]

    assert places == sorted(places)


async def test_a_lost_cursor_is_answered_by_one_reset_and_then_what_happens(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    async with resumed(brain) as (client, greeting):
        await insert(connection, "before")
        newest = Cursor.parse((await message(client))["cursor"])
        oldest = Cursor.parse(greeting["cursor"])

    lost = {
        "from the future": Cursor(newest.tick + 1000, newest.nonce),
        "of another history": Cursor(oldest.tick, oldest.nonce + 1),
        "of another history and new": Cursor(newest.tick, newest.nonce + 1),
        "from before the log": Cursor(0, 1),
    }
    garbage = ["garbage", "1.2", "\0", "9" * 500, "1.2.3.4", "' OR 1=1 --", "-1.-1.-1"]
    for number, cursor in enumerate([*map(str, lost.values()), *garbage]):
        async with resumed(brain, cursor) as (client, greeting):
            assert greeting["type"] == "connected"
            reset = await message(client)
            assert reset["type"] == "reset"
            assert reset["data"]["message"]

            await insert(connection, id := f"after {number}")
            assert await ids(client, 1) == [id]
        async with resumed(brain, reset["cursor"]) as (client, _):
            assert await ids(client, 1) == [id]


async def test_a_gap_while_connected_is_a_reset_for_clients_with_cursors(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    async with resumed(brain) as (client, _):
        async with connection.transaction():
            await connection.execute("SELECT brain.begin_history()")
            await insert(connection, "lost")

        assert (await message(client))["type"] == "reset"
        await insert(connection, "found")
        assert await ids(client, 1) == ["found"]


class Hopper:
    """A client that reconnects often, and notes the messages of each task."""

    def __init__(self, brains: list[RunningBrain], cursor: str, chance: random.Random) -> None:
        self._brains = brains
        self._cursor = cursor
        self._chance = chance
        self.received: dict[str, list[float]] = {}

    async def hop(self, times: int) -> None:
        for _ in range(times):
            brain = self._chance.choice(self._brains)
            async with resumed(brain, self._cursor) as (client, greeting):
                self._cursor = greeting["cursor"]
                for _ in range(self._chance.randrange(20)):
                    self._note(await message(client))

    async def receive_the_rest(self) -> None:
        async with resumed(self._brains[0], self._cursor) as (client, _):
            while (each := await message(client))["type"] != "heartbeat":
                self._note(each)

    def _note(self, each: dict[str, Any]) -> None:
        self._cursor = each["cursor"]
        if each["type"] == "run_update":
            self.received.setdefault(each["data"]["id"], []).append(each["data"]["progress"])
        else:
            assert each["type"] == "heartbeat", each


async def write(database: str, id: str, stop: asyncio.Event, chance: random.Random) -> int:
    """Update a task until `stop` is set, in transactions that overlap; return how often."""
    writer = await asyncpg.connect(database)
    await insert(writer, id)
    steps = 0
    while not stop.is_set():
        async with writer.transaction():
            await writer.execute("UPDATE tasks SET progress = $1 WHERE id = $2", steps + 1, id)
            await asyncio.sleep(chance.random() * 0.01)
        steps += 1
    await writer.close()
    return steps


async def test_at_the_seam_between_history_and_live_nothing_is_lost_or_doubled(
    tmp_path: Path, database: str
) -> None:
    """Clients hop between two nodes with small rings, under writes."""
    chance = random.Random(5221)
    small = {"BRAIN_HEARTBEAT_SECONDS": "0.3", "BRAIN_RING_BYTES": "100000"}
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    async with (
        running_brain(folders[0], "--database-url", database, **small) as one,
        running_brain(folders[1], "--database-url", database, **small) as other,
    ):
        async with resumed(one) as (_, greeting):
            hoppers = [Hopper([one, other], greeting["cursor"], chance) for _ in range(3)]
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            writers = [
                tasks.create_task(write(database, str(number), stop, chance)) for number in range(4)
            ]
            await asyncio.gather(*(hopper.hop(times=30) for hopper in hoppers))
            stop.set()
        for hopper in hoppers:
            await hopper.receive_the_rest()

    for hopper in hoppers:
        assert hopper.received == {
            str(number): list(range(writer.result() + 1)) for number, writer in enumerate(writers)
        }
