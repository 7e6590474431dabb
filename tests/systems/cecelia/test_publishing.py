from __future__ import annotations

import asyncpg
import pytest

from brain.systems.cecelia.errors import UnknownStatus, UnknownTask
from brain.systems.cecelia.publishing import update_task_progress, update_task_status
from tests.database.log_reading import events_after, reading


async def test_a_backend_changes_a_task_with_nothing_but_the_environment(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAIN_DATABASE_URL", database)
    await connection.execute("INSERT INTO tasks (id, status) VALUES ('task-123', 'running')")

    await update_task_progress("task-123", current_step=5, step_name="Writing code")
    await update_task_status("task-123", "completed", payload={"result": "Success"})

    task = await connection.fetchrow("SELECT status, progress, payload - 'none' AS p FROM tasks")
    assert task is not None
    assert (task["status"], task["progress"]) == ("completed", 5)
    assert task["p"] == '{"result": "Success", "step_name": "Writing code", "current_step": 5}'


async def test_a_change_is_logged_when_the_transaction_of_the_backend_commits(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute("INSERT INTO tasks (id) VALUES ('a')")
    async with reading(database) as log:
        start = await log.tick()
        transaction = connection.transaction()
        await transaction.start()
        await update_task_status("a", "running", connection=connection)
        assert await events_after(log, start) == []

        await transaction.rollback()
        assert await events_after(log, start) == []

        async with connection.transaction():
            await update_task_status("a", "failed", error="Build failed", connection=connection)
        (event,) = await events_after(log, start)
        assert event.row is not None
        row = event.row
        assert (row.string("status"), row.string("error")) == ("failed", "Build failed")


async def test_a_pool_may_take_the_place_of_a_connection(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute("INSERT INTO tasks (id) VALUES ('a')")

    async with asyncpg.create_pool(database, min_size=1, max_size=2) as pool:
        await update_task_progress("a", current_step=3, connection=pool)

    assert await connection.fetchval("SELECT progress FROM tasks") == 3


async def test_an_unknown_task_or_status_is_refused(connection: asyncpg.Connection) -> None:
    with pytest.raises(UnknownTask, match="there is no task 'no-such-task'"):
        await update_task_status("no-such-task", "completed", connection=connection)
    with pytest.raises(UnknownTask, match="there is no task 'no-such-task'"):
        await update_task_progress("no-such-task", current_step=1, connection=connection)
    with pytest.raises(UnknownStatus, match="not 'finished'"):
        await update_task_status("no-such-task", "finished", connection=connection)
