"""How the problems of watched tables are reported while Brain runs."""

from __future__ import annotations

import asyncio
import random
import string
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from brain.database import watches
from brain.database.connection import opened_pool
from brain.problems import Problem, Problems

pytestmark = pytest.mark.postgres_versions

PATIENCE_SECONDS = 20.0
STORED = "SELECT count(*) FROM brain.reader_problems"


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


async def test_what_a_node_cannot_read_of_a_channel_is_a_problem_of_its_watch(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "CHECK_SECONDS", 0.01)
    for table in ("things", "others"):
        await connection.execute(f"CREATE TABLE {table} (id int PRIMARY KEY)")
        await connection.execute("SELECT brain.watch($1::text::regclass, $1, '{id}')", table)
    long = "".join(random.Random(1).choices(string.ascii_letters, k=9000))
    problems = Problems()
    problems.report("log tasks", "happened before", channel="tasks")
    async with opened_pool(database) as pool:
        task = asyncio.create_task(watches.report_to_watches(pool, problems))
        await asyncio.sleep(0)
        problems.report("log tasks", 'an event was repaired: ["a"]', channel="tasks")
        problems.report("log", "of no channel")
        problems.report("log news", "of a channel without a table", channel="news")
        problems.report("log things", f"a key: {long}", channel="things")
        problems.report("log others", "a key: \0", channel="others")
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while await connection.fetchval(STORED) < 3:
                    await asyncio.sleep(0.01)
        finally:
            task.cancel()
            await asyncio.wait([task])
    assert await tasks_problems(connection) == ['an event was repaired: ["a"]']
    assert await connection.fetchval(STORED) == 3

    await connection.execute("UPDATE brain.reader_problems SET at = at - interval '2 hours'")
    assert await tasks_problems(connection) == []


async def tasks_problems(connection: asyncpg.Connection) -> list[str]:
    found: list[str] = await connection.fetchval(
        "SELECT problems FROM brain.watches WHERE channel = 'tasks'"
    )
    return found
