"""Every type has one text per value, which docs/types.md shows."""

from __future__ import annotations

import json

import asyncpg
import pytest

from brain.message.json_text import split_object, text_of
from tests.database.log_reading import rows_of
from tests.database.types_document import (
    DOCUMENT,
    HOSTILE_SETTINGS,
    SAMPLES,
    document,
    insert_samples,
    sent_texts,
    table_of_samples,
)

pytestmark = pytest.mark.postgres_versions


async def test_the_document_shows_each_type_as_it_is_sent(connection: asyncpg.Connection) -> None:
    assert len({sample.type for sample in SAMPLES}) >= 60
    async with table_of_samples(connection) as names:
        await insert_samples(connection)
        texts = await sent_texts(connection)

    assert DOCUMENT.read_text() == document(names, texts), (
        "run: python -m tests.database.types_document"
    )
    for text in texts.values():
        json.loads(text)


async def test_the_settings_of_sessions_show_in_no_text_of_an_event_or_a_snapshot(
    database: str, connection: asyncpg.Connection
) -> None:
    async with table_of_samples(connection):
        await insert_samples(connection)
        expected = await sent_texts(connection)
        hostile = await asyncpg.connect(database)
        try:
            await hostile.execute(HOSTILE_SETTINGS)
            await hostile.execute("DELETE FROM samples")
            await insert_samples(hostile)
            assert await sent_texts(connection) == expected

            for reader in (connection, hostile):
                (row,) = await rows_of(reader, "samples")
                assert {n: text_of(text) for n, text in split_object(row).items()} == expected
        finally:
            await hostile.close()


async def test_the_settings_of_the_writer_show_in_no_key(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        """
        CREATE TABLE keys (
            f float8, d daterange, t timestamptz, i interval, b bytea, c regclass,
            PRIMARY KEY (f, d, t, i, b, c));
        SELECT brain.watch('keys', 'keys', '{f}');
        """
    )
    insert = """
        INSERT INTO keys VALUES (0.1::float8 + 0.2::float8, '[2026-01-31,2026-02-06)',
            '2026-02-06 01:30:00+05:45', '1 day 02:03:04', '\\x00ff', 'pg_catalog.pg_class')
    """
    hostile = await asyncpg.connect(database)
    try:
        await hostile.execute(HOSTILE_SETTINGS)
        await connection.execute(insert)
        await connection.execute("DELETE FROM keys")
        await hostile.execute(insert)
        await hostile.execute("DELETE FROM keys")
    finally:
        await hostile.close()

    keys = await connection.fetch("SELECT key FROM brain.events WHERE channel = 'keys'")
    assert len(keys) == 4
    assert {record["key"] for record in keys} == {
        '[0.30000000000000004, "[2026-01-31,2026-02-06)", "2026-02-05T19:45:00+00:00",'
        ' "1 day 02:03:04", "\\\\x00ff", "pg_class"]'
    }
