from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from brain.embedded.server import serve_embedded
from tests.database.hostile import make_hostile, ordinary_connection
from tests.end_to_end.brain import PATIENCE_SECONDS, get, message, messages, running_brain
from tests.proxy import proxy_to


@asynccontextmanager
async def writing(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        connection.terminate()


async def ready(url: str, status: int) -> None:
    """Return once `/readyz` answers with `status`."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await get(url + "/readyz"))[0] != status:
            await asyncio.sleep(0.02)


async def test_postgresql_may_be_restarted_while_clients_stay_connected(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with ExitStack() as first:
        server = first.enter_context(serve_embedded(data))
        # A restarted server may get another port.
        async with (
            proxy_to(server.url) as (url, proxy),
            running_brain(tmp_path, "--database-url", url) as brain,
        ):
            async with brain.client() as client:
                async with writing(server.url) as connection:
                    await connection.execute("INSERT INTO tasks (id) VALUES ('before')")
                assert (await message(client))["data"]["id"] == "before"

                first.close()
                await ready(brain.http, 503)
                _, body = await get(brain.http + "/api/brain/status/ws")
                assert json.loads(body)["websocket"] == {
                    "active": False,
                    "connected_clients": 1,
                    "endpoint": "/ws",
                }
                assert (await get(brain.http + "/api/brain/tasks"))[0] == 503

                with serve_embedded(data) as again:
                    proxy.lead_to(again.url)
                    async with writing(again.url) as connection:
                        await connection.execute("INSERT INTO tasks (id) VALUES ('meanwhile')")
                        await ready(brain.http, 200)
                        await connection.execute("INSERT INTO tasks (id) VALUES ('after')")

                    ids = [each["data"]["id"] for each in await messages(client, 2)]
                    assert ids == ["meanwhile", "after"]
                    assert (await get(brain.http + "/api/brain/tasks"))[0] == 200


async def test_a_link_that_goes_dead_is_noticed_and_what_was_committed_meanwhile_arrives(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    async with proxy_to(database) as (url, proxy):
        quickly = {"BRAIN_IDLE_POLL_SECONDS": "0.3", "BRAIN_DATABASE_TIMEOUT_SECONDS": "0.5"}
        async with running_brain(tmp_path, "--database-url", url, **quickly) as brain:
            async with brain.client() as client:
                proxy.swallow()
                await connection.execute("INSERT INTO tasks (id) VALUES ('in the dark')")
                await ready(brain.http, 503)
                proxy.restore()

                assert (await message(client))["data"]["id"] == "in the dark"


async def test_changes_arrive_once_and_in_order_while_connections_are_killed(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    count = 300
    async with running_brain(tmp_path, "--database-url", database) as brain:
        async with brain.client() as client:

            async def write() -> None:
                await connection.execute("INSERT INTO tasks (id) VALUES ('a')")
                for number in range(1, count):
                    await connection.execute("UPDATE tasks SET progress = $1", number)

            async def fire(stop: asyncio.Event) -> None:
                async with writing(database) as other:
                    while not stop.is_set():
                        await other.execute(
                            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                            " WHERE datname = current_database() AND application_name = 'brain'"
                        )
                        await asyncio.sleep(0.15)

            stop = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fire(stop))
                await write()
                await asyncio.sleep(0.5)
                stop.set()

            received = await messages(client, count)
            assert [each["data"]["progress"] for each in received] == list(range(count))


async def test_a_batch_source_that_dies_ends_the_process(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    async with running_brain(tmp_path, "--database-url", database) as brain:
        async with brain.client():
            # An operation that this version of Brain does not know: the log cannot be understood.
            await connection.execute(
                "SELECT brain.append('tasks', NULL, 'X', '[1]', NULL, NULL), pg_notify('brain', '')"
            )

            assert await brain.stopped() == 1

    assert "the task 'batch source' died" in brain.output.read_text()


@pytest.mark.parametrize(
    ("removed", "missing"),
    [
        ("DROP SCHEMA brain CASCADE", "schema brain"),
        ("DROP TABLE brain.events CASCADE", "table brain.events"),
        ("ALTER FUNCTION brain.newest RENAME TO elsewhere", "function brain.newest"),
    ],
)
async def test_a_schema_that_is_dropped_ends_the_process_with_one_line(
    tmp_path: Path, database: str, connection: asyncpg.Connection, removed: str, missing: str
) -> None:
    async with running_brain(
        tmp_path, "--database-url", database, BRAIN_IDLE_POLL_SECONDS="0.2"
    ) as brain:
        async with brain.client():
            await connection.execute(removed)

            assert await brain.stopped() == 1

    lines = brain.output.read_text().splitlines()
    (critical,) = [line for line in lines if "CRITICAL" in line]
    assert critical.endswith(f"brain.app: {missing} is gone from the database: run `brain migrate`")
    assert not [line for line in lines if "Traceback" in line]


async def test_brain_serves_a_database_with_defaults_that_nobody_would_expect(
    tmp_path: Path, database: str
) -> None:
    await make_hostile(database)
    async with running_brain(tmp_path, "--database-url", database) as brain:
        async with brain.client() as client:
            connection = await ordinary_connection(database)
            await connection.execute("INSERT INTO tasks (id) VALUES ('a')")
            assert (await message(client))["data"]["id"] == "a"
            await connection.close()
        assert (await get(brain.http + "/api/brain/tasks"))[0] == 200
        assert json.loads((await get(brain.http + "/readyz"))[1]) == {"status": "ready"}


async def test_workers_end_when_the_schema_is_dropped(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    async with running_brain(
        tmp_path, "--database-url", database, "--workers", "2", BRAIN_IDLE_POLL_SECONDS="0.2"
    ) as brain:
        await connection.execute("DROP SCHEMA brain CASCADE")

        assert await brain.stopped() == 1

    assert "schema brain is gone from the database" in brain.output.read_text()


async def test_a_log_that_cannot_be_read_for_a_while_is_a_problem_and_no_lost_connection(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    async with running_brain(
        tmp_path, "--database-url", database, BRAIN_IDLE_POLL_SECONDS="0.2"
    ) as brain:
        async with brain.client() as client:
            async with connection.transaction():
                await connection.execute("LOCK TABLE brain.ticks")
                await ready(brain.http, 503)
                await connection.execute("INSERT INTO tasks (id) VALUES ('meanwhile')")
            assert (await message(client))["data"]["id"] == "meanwhile"
            await ready(brain.http, 200)
            _, body = await get(brain.http + "/readyz")

    (problem,) = [each for each in json.loads(body)["problems"] if each["address"] == "log"]
    assert problem["count"] >= 2
    assert "canceling statement due to lock timeout" in problem["text"]
    lines = brain.output.read_text().splitlines()
    assert len([line for line in lines if "brain.problems: log: " in line]) == 1
    assert not [line for line in lines if "cannot follow the log" in line]


async def test_a_server_that_is_suspended_is_noticed(tmp_path: Path) -> None:
    with serve_embedded(tmp_path / "data") as server:
        quickly = {"BRAIN_IDLE_POLL_SECONDS": "0.3", "BRAIN_DATABASE_TIMEOUT_SECONDS": "0.5"}
        async with running_brain(tmp_path, "--database-url", server.url, **quickly) as brain:
            async with writing(server.url) as connection:
                backends = [
                    record["pid"]
                    for record in await connection.fetch(
                        "SELECT pid FROM pg_stat_activity WHERE application_name = 'brain'"
                    )
                ]
            assert backends
            for pid in backends:
                os.kill(pid, signal.SIGSTOP)
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while "cannot follow the log" not in brain.output.read_text():
                        await asyncio.sleep(0.02)
            finally:
                for pid in backends:
                    os.kill(pid, signal.SIGCONT)
            await ready(brain.http, 200)
