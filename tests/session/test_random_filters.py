"""What a client is sent by filters is what SQL finds in the table."""

from __future__ import annotations

import asyncpg
import pytest

from tests.database.random_filters import USER_TYPES
from tests.session.random_filters import run_seed


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_client_gets_what_sql_finds_by_random_filters(
    database: str, connection: asyncpg.Connection, seed: int
) -> None:
    """More seeds: python -m tests.session.random_filters --seeds 50."""
    await connection.execute(USER_TYPES)

    sent = await run_seed(connection, database, seed)

    assert min(sent[op] for op in ("insert", "update", "leave", "delete")) > 20, sent
