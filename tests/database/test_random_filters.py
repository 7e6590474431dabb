"""What the hub finds by filters in events is what SQL finds in the table."""

from __future__ import annotations

import asyncpg
import pytest

from brain.message.matching import Match
from tests.database.random_filters import USER_TYPES, run_seed

pytestmark = pytest.mark.postgres_versions


@pytest.mark.parametrize("seed", [1, 2])
async def test_hub_and_sql_find_the_same_rows_by_random_filters(
    database: str, connection: asyncpg.Connection, seed: int
) -> None:
    """More seeds: python -m tests.database.random_filters --seeds 50."""
    await connection.execute(USER_TYPES)

    compared = await run_seed(connection, database, seed, has_all_types=True, rows=25, filters=150)

    assert compared[Match.MATCHES] > 1000
    assert compared[Match.LEAVES] > 50
    assert compared[None] > 4000
