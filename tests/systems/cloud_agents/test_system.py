"""Code Cloud Agents, with and without Cecelia Brain beside it."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import pytest
from websockets.asyncio.client import ClientConnection, connect

from brain.app import build_app
from brain.settings import Settings
from brain.system import System
from brain.systems.cecelia.system import Cecelia
from brain.systems.cloud_agents.system import CloudAgents
from tests.transport.served import served

PATIENCE_SECONDS = 20


async def next_of(client: ClientConnection, *types: str) -> list[dict[str, object]]:
    """Return the next messages, which must have these types."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        messages = [json.loads(await client.recv()) for _ in types]
    assert [message["type"] for message in messages] == [*types]
    return messages


@pytest.mark.parametrize(
    "systems",
    [[CloudAgents()], [CloudAgents(), Cecelia()], [Cecelia(), CloudAgents()]],
    ids=["alone", "before Cecelia", "after Cecelia"],
)
async def test_its_clients_get_tasks_as_runs(
    database: str, connection: asyncpg.Connection, systems: list[System]
) -> None:
    app = build_app(database, Settings(development_tokens=True), systems)
    async with (
        served(app) as (port, _),
        connect(f"ws://127.0.0.1:{port}/ws?token=test-1&channel=tasks") as client,
    ):
        _, greeting = await next_of(client, "auth", "connected")
        assert greeting["data"] == {"message": "Connected to Cecelia Brain"}

        await connection.execute("INSERT INTO tasks (id) VALUES ('a')")
        await connection.execute("UPDATE tasks SET status = 'completed'")

        update, _ = await next_of(client, "run_update", "run_complete")
        assert isinstance(update["data"], dict)
        assert update["data"]["task_id"] == "a"
