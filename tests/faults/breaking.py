"""Scenarios in which something breaks: connections, PostgreSQL, the network, Brain."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from random import Random
from time import monotonic

from brain.database.log import Log
from brain.message.cursor import Cursor
from tests.faults.clients import Client, Lifetime, stay
from tests.faults.replica import Replica
from tests.faults.scene import (
    PATIENCE_SECONDS,
    Report,
    ScenarioFailed,
    Stage,
    becomes,
    connected,
    set_up,
)
from tests.faults.servers import is_ready, own_postgres
from tests.proxy import proxy_to

TERMINATE = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name = 'brain'
"""

# A commit takes as long as on a slow disk.
SLOW_DISK = {"commit_delay": "100000", "commit_siblings": "0", "wal_writer_delay": "10s"}


async def listener_terminated(stage: Stage, *, times: int, clients: int, rate: float) -> Report:
    """Terminate all database connections of Brain, again and again."""
    async with set_up(stage) as scene:
        await scene.serve()
        async with scene.followed(clients), scene.writing(rate):
            async with connected(scene.database) as admin:
                while scene.faults < times:
                    await asyncio.sleep(stage.chance.uniform(0.05, 0.5))
                    scene.faults += bool(await admin.fetchval(TERMINATE))
            await scene.every_client_receives()
        return await scene.report()


async def postgres_restart(stage: Stage, *, times: int, clients: int, rate: float) -> Report:
    """Restart PostgreSQL, by turns with a fast and an immediate shutdown."""
    async with own_postgres(stage.binaries) as postgres, set_up(stage, postgres.url) as scene:
        node = await scene.serve()
        async with scene.followed(clients), scene.writing(rate):
            for number in range(times):
                await scene.every_client_receives()
                await asyncio.sleep(stage.chance.uniform(0.5, 1.5))
                await postgres.stop(signal.SIGQUIT if number % 2 else signal.SIGINT)
                await asyncio.sleep(stage.chance.uniform(0, 0.5))
                await postgres.start()
                scene.faults += 1
            await becomes_ready(node.port)
            await scene.every_client_receives()
        return await scene.report()


async def postgres_killed(
    stage: Stage, *, times: int, clients: int, rate: float, waits: bool
) -> Report:
    """
    Kill PostgreSQL with kill -9 in the moment after a delivery, and start it again.

    Without `waits`, writers commit without waiting for the disk. With it, at least one crash has to
    take back a tick that was delivered: a kill that came too late for that is repeated.
    """
    async with (
        own_postgres(stage.binaries, SLOW_DISK) as postgres,
        set_up(stage, postgres.url) as scene,
    ):
        await scene.configure(synchronous_commit="on" if waits else "off")
        scene.notes.waits_for_disk = waits
        nodes = [await scene.serve(), await scene.serve()]
        taken_back = 0
        async with scene.followed(clients), scene.writing(rate):
            while scene.faults < times or (waits and not taken_back and scene.faults < 10 * times):
                await scene.every_client_receives()
                first = scene.clients[0]
                await first.receives()
                cursor = Cursor.parse(first.cursor)
                await postgres.kill()
                await postgres.start()
                taken_back += not await is_held(scene.database, cursor)
                scene.faults += 1
                for node in nodes:
                    await becomes_ready(node.port)
            await scene.every_client_receives()
        if waits and not taken_back:
            raise ScenarioFailed("no crash has taken back a tick that was delivered")
        return await scene.report()


async def is_held(database: str, cursor: Cursor) -> bool:
    """Return True if the log has the tick of a cursor."""
    async with connected(database) as connection:
        return await Log(connection, PATIENCE_SECONDS).holds(cursor)


def come_and_go(chance: Random) -> Lifetime:
    return stay(chance) if chance.random() < 0.5 else Lifetime(1000, 5, 0.1, is_polite=False)


async def black_hole(
    stage: Stage,
    *,
    seconds: float,
    times: int,
    clients: int,
    rate: float,
    settings: Mapping[str, str] = {},
) -> Report:
    """Let the link to the database go dead without an error, and restore it."""

    async with set_up(stage) as scene, proxy_to(scene.database) as (url, proxy):
        node = await scene.serve(url, **settings)
        async with scene.followed(clients, come_and_go), scene.writing(rate):
            for _ in range(times):
                await scene.every_client_receives()
                proxy.swallow()
                begun = monotonic()
                await becomes_ready(node.port, expected=False)
                await asyncio.sleep(begun + seconds - monotonic())
                proxy.restore()
                scene.faults += 1
            await becomes_ready(node.port)
            await scene.every_client_receives()
        return await scene.report()


async def server_killed(stage: Stage, *, times: int, clients: int, rate: float) -> Report:
    """Restart Brain, by turns with SIGTERM and SIGKILL, while its clients are coming back."""
    async with set_up(stage) as scene:
        node = await scene.serve()
        async with scene.followed(clients), scene.writing(rate, batch=20):
            for number in range(2 * times):
                foremost = max(client.replica.deliveries for client in scene.clients)
                how = signal.SIGKILL if number % 2 else signal.SIGTERM
                status = await node.end(how)
                if how is signal.SIGTERM and status != 0:
                    raise ScenarioFailed(f"Brain exited with {status} after SIGTERM")
                await node.start()
                scene.faults += 1
                # The other clients are catching up when the next restart begins.
                await some_have_received(foremost, scene.clients, stage.chance.uniform(0.2, 1))
            await scene.every_client_receives()
        return await scene.report()


async def some_have_received(
    messages: int, clients: Sequence[Client[Replica]], share: float
) -> None:
    """Return once a share of the clients has received more than this many messages."""
    await becomes(
        lambda: sum(c.replica.deliveries > messages for c in clients) >= share * len(clients),
        "clients that come back",
    )


async def becomes_ready(port: int, *, expected: bool = True) -> None:
    """Return once a Brain is ready; with `expected=False`, once it no longer is."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await is_ready(port) is not expected:
            await asyncio.sleep(0.05)
