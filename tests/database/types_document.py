"""
Writes docs/types.md: how a value of each PostgreSQL type is sent.

    python -m tests.database.types_document
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import asyncpg

from brain.database.migrations import migrate
from brain.message.json_text import split_object, text_of
from tests.postgres import new_database, server_for_tests
from tests.schemas import every_schema

DOCUMENT = Path(__file__).parents[2] / "docs" / "types.md"

# What the writer's session may have set. None of it shows.
HOSTILE_SETTINGS = """
    SET extra_float_digits = -15;
    SET bytea_output = escape;
    SET DateStyle = 'German, DMY';
    SET IntervalStyle = sql_standard;
    SET TimeZone = 'Asia/Kathmandu';
    SET quote_all_identifiers = on;
    SET search_path = public, pg_catalog;
    SET xmlbinary = hex;
"""
USER_TYPES = """
    CREATE TYPE mood AS ENUM ('sad', 'so so', 'happy');
    CREATE DOMAIN cents AS numeric(12, 2) CHECK (VALUE >= 0);
    CREATE TYPE place AS (name text, at point, since date);
    CREATE TYPE mood_range AS RANGE (subtype = mood);
    CREATE TABLE reference (id int PRIMARY KEY);
"""


class Sample(NamedTuple):
    type: str
    value: str
    """An SQL expression, cast to the type."""
    note: str = ""


SAMPLES: Sequence[Sample] = (
    Sample("smallint", "-32768"),
    Sample("integer", "2147483647"),
    Sample("bigint", "9223372036854775807", "beyond 2^53: `?numbers=string`"),
    Sample("numeric", "12345678901234567890.123456789", "every digit"),
    Sample("numeric(10, 2)", "9.9", "with its scale"),
    Sample("numeric", "'1e400'", "401 digits, as PostgreSQL prints it"),
    Sample("numeric", "'NaN'", "not a number of JSON: a string"),
    Sample("numeric", "'-Infinity'", "a string"),
    Sample("real", "0.1::real + 0.2::real", "the shortest text that is this number"),
    Sample("double precision", "0.1::float8 + 0.2::float8"),
    Sample("double precision", "'1e300'"),
    Sample("double precision", "'NaN'", "a string"),
    Sample("double precision", "'Infinity'", "a string"),
    Sample("money", "'1234.5'", "in the locale C"),
    Sample("boolean", "true"),
    Sample("text", "E'say \"hi\"\\\\ \\n \\u20ac'"),
    Sample("varchar(20)", "'short'"),
    Sample("char(6)", "'ab'", "padded"),
    Sample("name", "'a name'"),
    Sample('"char"', "'c'"),
    Sample("bytea", "'\\x00ff10'", "hexadecimal"),
    Sample("date", "'2026-02-06'"),
    Sample("date", "'infinity'"),
    Sample("date", "'0044-03-15 BC'"),
    Sample("time", "'01:30:00.123456'"),
    Sample("time with time zone", "'01:30:00+05:45'", "its own offset"),
    Sample("timestamp", "'2026-02-06 01:30:00.5'"),
    Sample("timestamp with time zone", "'2026-02-06 01:30:00+05:45'", "in UTC"),
    Sample("timestamp with time zone", "'-infinity'"),
    Sample("interval", "'1 year 2 mons -3 days 04:05:06.7'"),
    Sample("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"),
    Sample("json", 'E\'{"b": 1.10,\\n "a": 1, "a": 2}\'', "as written, line breaks as spaces"),
    Sample("json", '\'{"zero": "\\u0000"}\'', "as written"),
    Sample("jsonb", '\'{"b": 1.10, "a": 1, "a": 2}\'', "as jsonb stores it, every digit"),
    Sample("jsonb", "'null'"),
    Sample("jsonpath", "'$.a[*] ? (@ > 1)'"),
    Sample("inet", "'192.168.0.1/24'"),
    Sample("cidr", "'10.0.0.0/8'"),
    Sample("macaddr", "'08:00:2b:01:02:03'"),
    Sample("macaddr8", "'08:00:2b:01:02:03:04:05'"),
    Sample("bit(4)", "B'1010'"),
    Sample("bit varying", "B'101'"),
    Sample("tsvector", "'a fat cat'"),
    Sample("tsquery", "'fat & rat'"),
    Sample("point", "'(0.1,2)'"),
    Sample("line", "'{1,2,3}'"),
    Sample("lseg", "'[(0,0),(1,1)]'"),
    Sample("box", "'(1,1),(0,0)'"),
    Sample("path", "'[(0,0),(1,1),(2,0)]'"),
    Sample("polygon", "'((0,0),(1,1),(2,0))'"),
    Sample("circle", "'<(0,0),1.5>'"),
    Sample("int4range", "'[1,10)'"),
    Sample("int8range", "'[1,]'"),
    Sample("numrange", "'(1.10,2.20]'"),
    Sample("daterange", "'[2026-01-31,2026-02-06)'"),
    Sample("tsrange", "'[2026-01-31 00:00,2026-02-06 12:00)'"),
    Sample("tstzrange", "'[2026-01-31 00:00+05:45,)'", "in UTC"),
    Sample("int4multirange", "'{[1,3), [7,9)}'"),
    Sample("datemultirange", "'{[2026-01-31,2026-02-06)}'"),
    Sample("oid", "4294967295", "a string"),
    Sample("regclass", "'public.reference'", "with its schema"),
    Sample("regtype", "'timestamptz'"),
    Sample("regproc", "'pg_catalog.now'"),
    Sample("regnamespace", "'public'"),
    Sample("pg_lsn", "'16/B374D848'"),
    Sample("xid8", "'18446744073709551615'"),
    Sample("tid", "'(0,1)'"),
    Sample("pg_snapshot", "'10:20:10,14,15'"),
    Sample("integer[]", "'{{1,2},{3,NULL}}'", "nested as the array is"),
    Sample("text[]", "ARRAY['a', NULL, 'c,d']"),
    Sample("numeric[]", "ARRAY[1.10, 'NaN']"),
    Sample("timestamptz[]", "ARRAY['2026-02-06 01:30:00+05:45']::timestamptz[]"),
    Sample("daterange[]", "ARRAY['[2026-01-31,2026-02-06)']::daterange[]"),
    Sample("mood", "'so so'", "an enum"),
    Sample("cents", "12.5", "a domain over numeric(12, 2)"),
    Sample("place", "ROW('Rome', '(1,2)', '2026-02-06')::place", "a composite type"),
    Sample("place[]", "ARRAY[ROW('Rome', NULL, '2026-02-06')::place]"),
    Sample("mood_range", "'[sad,happy)'", "a range over an enum"),
    Sample("integer", "NULL", "null, as for every type"),
)

HEADER = """\
# Types

How a value of each PostgreSQL type is sent in the data of a row: as PostgreSQL's own JSON
functions write it. Every digit is kept. What the writer's session has set (`DateStyle`,
`TimeZone`, `bytea_output`, `extra_float_digits`, `IntervalStyle`, `lc_monetary`, `search_path`)
does not show: there is one text per value in events, in snapshots and in keys. Types that are not
listed, like those of extensions, are sent as the string that PostgreSQL prints, or as JSON if the
type is one of an extension with a cast to json that all may execute (`hstore`). A cast of your own
is not called.

A value that is larger than the limit of its watch is not sent, see
[operating.md](operating.md#large-values). For numbers that a JavaScript number does not hold see
[protocol.md](protocol.md#numbers).

This page is made by `python -m tests.database.types_document`, from rows that were written to a
watched table.

| type | value | sent as | |
|---|---|---|---|
"""


@asynccontextmanager
async def table_of_samples(connection: asyncpg.Connection) -> AsyncIterator[Sequence[str]]:
    """Create the watched table `samples`, with a column for each sample; yield their names."""
    names = [f"c{number:02}" for number in range(len(SAMPLES))]
    columns = ", ".join(f"{n} {s.type}" for n, s in zip(names, SAMPLES, strict=True))
    await connection.execute(USER_TYPES)
    await connection.execute(f"CREATE TABLE samples (id int PRIMARY KEY, {columns})")
    await connection.execute("SELECT brain.watch('samples', 'samples', $1)", ["id", *names])
    yield names


async def insert_samples(connection: asyncpg.Connection) -> None:
    values = ", ".join(f"({sample.value})::{sample.type}" for sample in SAMPLES)
    await connection.execute(f"INSERT INTO samples VALUES (1, {values})")


async def sent_texts(connection: asyncpg.Connection) -> dict[str, str]:
    """Return the JSON text of each column, as the newest event of the log has it."""
    data = await connection.fetchval(
        "SELECT data FROM brain.events WHERE channel = 'samples' ORDER BY id DESC LIMIT 1"
    )
    return {name: text_of(text) for name, text in split_object(data).items()}


def document(names: Sequence[str], texts: dict[str, str]) -> str:
    """Return the text of docs/types.md."""
    lines = [
        f"| {sample.type} | `{escaped(sample.value)}` | `{escaped(shortened(texts[name]))}` |"
        f" {sample.note} |"
        for name, sample in zip(names, SAMPLES, strict=True)
    ]
    return HEADER + "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:20]}...{text[-5:]}"


async def write() -> None:
    with server_for_tests() as server:
        async with new_database(server) as url:
            await migrate(url, every_schema())
            connection = await asyncpg.connect(url)
            try:
                async with table_of_samples(connection) as names:
                    await insert_samples(connection)
                    DOCUMENT.write_text(document(names, await sent_texts(connection)))
            finally:
                await connection.close()


if __name__ == "__main__":
    asyncio.run(write())
