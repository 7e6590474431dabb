"""How the problems of watched tables are reported while Brain runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from brain.database import watches
from brain.database.connection import opened_pool
from brain.problems import Problem, Problems

pytestmark = pytest.mark.postgres_versions

PATIENCE_SECONDS = 20.0


@asynccontextmanager
async def checking(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Problems]:
    """Check the watched tables again and again until the context ends."""
    monkeypatch.setattr(watches, "CHECK_SECONDS", 0.01)
    problems = Problems()
    async with opened_pool(database) as pool:
        task = asyncio.create_task(watches.warn_of_problems(pool, problems))
        try:
            yield problems
        finally:
            task.cancel()
            await asyncio.wait([task])


async def counted(problems: Problems, address: str, times: int) -> Problem:
    """Return the problem of an address, once it was counted so many times."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            for problem in problems.recent():
                if problem.address == address and problem.count >= times:
                    return problem
            await asyncio.sleep(0.01)


async def test_a_problem_of_a_watch_is_shown_as_long_as_it_lasts_and_logged_once(
    database: str,
    connection: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await connection.execute("ALTER TABLE tasks DISABLE TRIGGER USER")
    async with checking(database, monkeypatch) as problems:
        problem = await counted(problems, "watch tasks", 3)

    assert "a trigger is missing or disabled" in problem.text
    assert [line for line in caplog.messages if "watch tasks" in line] == [
        f"watch tasks: {problem.text}"
    ]


async def test_watches_that_cannot_be_checked_are_a_problem(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await connection.execute("ALTER VIEW brain.watches RENAME TO elsewhere")
    async with checking(database, monkeypatch) as problems:
        problem = await counted(problems, "watches", 2)

    assert problem.text == (
        'could not check the watched tables, trying again: relation "brain.watches" does not exist'
    )
