"""How sessions are ended that do not end of themselves."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from brain.database.backend_terminator import Backend, BackendTerminator
from brain.database.connection import OWN_BACKEND, end_backend

SOME = Backend(1, None)


async def test_an_end_that_failed_is_tried_again() -> None:
    outcomes = [False, False, True]

    async def end(backend: Backend) -> bool:
        assert backend == SOME
        return outcomes.pop(0)

    terminator = BackendTerminator(end)
    await terminator.end(SOME)
    await terminator.close()

    assert outcomes == []


async def test_what_cannot_be_ended_does_not_keep_brain_from_stopping(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def end(backend: Backend) -> bool:
        return False

    monkeypatch.setattr("brain.database.backend_terminator.CLOSE_SECONDS", 0.01)
    terminator = BackendTerminator(end)
    task = terminator.end(SOME)
    await terminator.close()

    assert task.cancelled()


async def test_a_session_with_the_process_id_of_a_former_one_is_not_ended(
    database: str, connection: asyncpg.Connection
) -> None:
    (row,) = await connection.fetch(OWN_BACKEND)
    backend = Backend(*row)
    assert backend.started_at is not None
    former = Backend(backend.pid, backend.started_at - timedelta(seconds=1))

    assert await end_backend(database, former)
    assert await connection.fetchval("SELECT 1") == 1
    assert await end_backend(database, backend)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await connection.fetchval("SELECT 1")


async def test_a_server_that_takes_no_connection_may_still_have_the_session() -> None:
    async with asyncio.timeout(20):
        assert not await end_backend("postgresql://nobody@127.0.0.1:1/none", SOME)
