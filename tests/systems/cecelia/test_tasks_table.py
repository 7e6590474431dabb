"""The defaults, triggers and constraints of the table `tasks`."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

pytestmark = pytest.mark.postgres_versions

PAST = "'2020-01-01 00:00+00'"


async def row(connection: asyncpg.Connection, *statements: str) -> dict[str, Any]:
    """Run `statements`, each in its own transaction, and return the only task."""
    for statement in statements:
        await connection.execute(statement)
    (record,) = await connection.fetch(
        """
        SELECT *, started_at > now() - interval '1 minute' AS started_now,
                  completed_at > now() - interval '1 minute' AS completed_now,
                  updated_at > now() - interval '1 minute' AS updated_now FROM tasks
        """
    )
    return dict(record)


async def test_all_columns_of_a_task_have_defaults(connection: asyncpg.Connection) -> None:
    task = await row(connection, "INSERT INTO tasks DEFAULT VALUES")

    assert len(task["id"]) == 36
    assert (task["status"], task["progress"], task["payload"]) == ("queued", 0, "{}")
    assert task["started_at"] is None


@pytest.mark.parametrize("status", ["running", "in_progress"])
async def test_a_task_that_begins_to_run_gets_its_start(
    connection: asyncpg.Connection, status: str
) -> None:
    task = await row(
        connection, "INSERT INTO tasks DEFAULT VALUES", f"UPDATE tasks SET status = '{status}'"
    )

    assert task["started_now"]
    assert task["completed_at"] is None


async def test_a_start_that_the_writer_gives_is_kept(connection: asyncpg.Connection) -> None:
    task = await row(
        connection,
        "INSERT INTO tasks DEFAULT VALUES",
        f"UPDATE tasks SET status = 'running', started_at = {PAST}",
    )

    assert not task["started_now"]


async def test_running_and_in_progress_are_one_start(connection: asyncpg.Connection) -> None:
    task = await row(
        connection,
        f"INSERT INTO tasks (status, started_at) VALUES ('running', {PAST})",
        "UPDATE tasks SET status = 'in_progress'",
    )

    assert not task["started_now"]


async def test_a_completed_task_gets_its_end(connection: asyncpg.Connection) -> None:
    task = await row(
        connection, "INSERT INTO tasks DEFAULT VALUES", "UPDATE tasks SET status = 'completed'"
    )

    assert task["completed_now"]


async def test_an_end_that_the_writer_gives_is_kept(connection: asyncpg.Connection) -> None:
    task = await row(
        connection, f"INSERT INTO tasks (status, completed_at) VALUES ('completed', {PAST})"
    )

    assert not task["completed_now"]


async def test_a_failed_task_was_not_completed(connection: asyncpg.Connection) -> None:
    task = await row(
        connection,
        "INSERT INTO tasks (status) VALUES ('running')",
        "UPDATE tasks SET status = 'failed', error = 'x'",
    )

    assert task["completed_at"] is None


async def test_a_task_that_runs_again_starts_again(connection: asyncpg.Connection) -> None:
    task = await row(
        connection,
        f"INSERT INTO tasks (status, started_at, completed_at)"
        f" VALUES ('completed', {PAST}, {PAST})",
        "UPDATE tasks SET status = 'running'",
    )

    assert task["started_now"]
    assert task["completed_at"] is None


async def test_an_update_sets_updated_at_unless_the_writer_does(
    connection: asyncpg.Connection,
) -> None:
    task = await row(
        connection,
        f"INSERT INTO tasks (updated_at) VALUES ({PAST})",
        "UPDATE tasks SET title = 'x'",
    )
    assert task["updated_now"]

    task = await row(connection, f"UPDATE tasks SET title = 'y', updated_at = {PAST}")
    assert not task["updated_now"]


@pytest.mark.parametrize(
    ("payload", "progress"),
    [
        ('{"current_step": 5}', 5),
        ('{"current_step": 2.5}', 2.5),
        ('{"current_step": "5"}', 1),
        ('{"current_step": -1}', 1),
        ('{"current_step": 1e999}', 1),
        ('{"current_step": 1e-400}', 1),
        ('{"current_step": -1e-400}', 1),
        ('{"current_step": 1e-300}', 1e-300),
        ('{"current_step": 0.0}', 0),
        ('{"current_step": null}', 1),
        ("{}", 1),
    ],
)
async def test_progress_may_come_with_the_payload(
    connection: asyncpg.Connection, payload: str, progress: float
) -> None:
    task = await row(
        connection,
        "INSERT INTO tasks (progress) VALUES (1)",
        f"UPDATE tasks SET payload = '{payload}'",
    )

    assert task["progress"] == progress


async def test_progress_that_the_writer_sets_wins_over_the_payload(
    connection: asyncpg.Connection,
) -> None:
    task = await row(
        connection,
        "INSERT INTO tasks DEFAULT VALUES",
        """UPDATE tasks SET progress = 3, payload = '{"current_step": 5}'""",
    )
    assert task["progress"] == 3

    task = await row(connection, "UPDATE tasks SET title = 'the step has not changed'")
    assert task["progress"] == 3


@pytest.mark.parametrize(
    "assignment",
    [
        "status = 'done'",
        "status = NULL",
        "progress = -1",
        "progress = 'NaN'",
        "progress = 'infinity'",
        "payload = '[]'",
    ],
)
async def test_a_value_that_no_format_knows_is_refused(
    connection: asyncpg.Connection, assignment: str
) -> None:
    await connection.execute("INSERT INTO tasks DEFAULT VALUES")

    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await connection.execute(f"UPDATE tasks SET {assignment}")
