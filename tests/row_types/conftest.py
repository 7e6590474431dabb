from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import pytest

from brain.row_types.catalog import read_catalog
from brain.row_types.model import Catalog
from tests.database.types_document import insert_samples, table_of_samples
from tests.node_packages import node_packages
from tests.postgres import new_database
from tests.row_types.rows import Rows, rows_sent
from tests.row_types.tables import NAMES, ROWS_OF_NAMES, ROWS_OF_TYPES, TYPES

__all__ = ["node_packages"]


@dataclass(frozen=True)
class Watched:
    """The watched tables of a database, and their rows as a Brain sends them."""

    catalog: Catalog
    rows: Rows
    """As Brain's client for Python parses them."""
    rows_with_number_strings: Rows
    """As the one for TypeScript asks for them."""

    def channel_of(self, table: str) -> str:
        return next(one.channel for one in self.catalog.tables if one.name.name == table)


@pytest.fixture(scope="module")
async def watched(postgres: str, core_template: str) -> AsyncIterator[Watched]:
    async with new_database(postgres, core_template) as url:
        connection = await asyncpg.connect(url)
        try:
            async with table_of_samples(connection):
                await insert_samples(connection)
            for script in (TYPES, ROWS_OF_TYPES, NAMES, ROWS_OF_NAMES):
                await connection.execute(script)
            catalog = await read_catalog(connection)
        finally:
            await connection.close()
        channels = [table.channel for table in catalog.tables]
        rows = await rows_sent(url, channels)
        yield Watched(catalog, rows, await rows_sent(url, channels, numbers="string"))
