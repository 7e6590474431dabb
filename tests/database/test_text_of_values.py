"""The JSON text of a value is the same whatever the sessions set that write and read it."""

from __future__ import annotations

import asyncpg
import pytest

from brain.message.json_text import split_array, split_object, text_of
from tests.database.changes import logged_events
from tests.database.log_reading import rows_of

pytestmark = pytest.mark.postgres_versions

TYPES = """
    CREATE TYPE mood AS ENUM ('good', 'so "so"');
    CREATE TYPE stay AS (since date, until timestamptz, rate float8);
    CREATE DOMAIN day AS date;
    CREATE DOMAIN workday AS day CHECK (extract(isodow FROM VALUE) < 6);
    CREATE TABLE "Odd" (id int PRIMARY KEY);
"""
# The type of each column, the expression for its value, and the JSON text of that.
VALUES: dict[str, tuple[str, str, str]] = {
    "fixed": ("numeric(30,12)", "12345678901234567.1", "12345678901234567.100000000000"),
    "huge": ("numeric", "1e400", "1" + "0" * 400),
    "tiny": ("numeric", "1e-400", "0." + "0" * 399 + "1"),
    "nan": ("numeric", "'NaN'", '"NaN"'),
    "big": ("bigint", "9223372036854775807", "9223372036854775807"),
    "doc": ("jsonb", """'{"m": 1e19, "n": 1.10}'""", '{"m": 10000000000000000000, "n": 1.10}'),
    "written": ("json", """'{"n":1.10,  "n" : 1e5}'""", """{"n":1.10,  "n" : 1e5}"""),
    "double": ("float8", "0.1::float8 + 0.2", "0.30000000000000004"),
    "infinite": ("float8", "'-Infinity'", '"-Infinity"'),
    "single": ("real", "0.1::real + 0.2::real", "0.3"),
    "doubles": ("float8[]", "ARRAY[0.1::float8 + 0.2]", "[0.30000000000000004]"),
    "point": ("point", "'(0.30000000000000004,2)'", '"(0.30000000000000004,2)"'),
    "bytes": ("bytea", "decode('00ff5c', 'hex')", r'"\\x00ff5c"'),
    "list of bytes": ("bytea[]", "ARRAY[decode('00ff', 'hex')]", r'["\\x00ff"]'),
    "date": ("date", "'2026-02-01'", '"2026-02-01"'),
    "workday": ("workday", "'2026-02-02'", '"2026-02-02"'),
    "endless": ("date", "'infinity'", '"infinity"'),
    "dates": ("date[]", "'{2026-02-01}'", '["2026-02-01"]'),
    "days": ("daterange", "'[2026-02-01,2026-02-03)'", '"[2026-02-01,2026-02-03)"'),
    "weeks": ("datemultirange", "'{[2026-02-01,2026-02-03)}'", '"{[2026-02-01,2026-02-03)}"'),
    "stay": (
        "stay",
        "('2026-02-01', '2026-02-01 12:00+00', 0.1::float8 + 0.2)",
        '{"since":"2026-02-01","until":"2026-02-01T12:00:00+00:00","rate":0.30000000000000004}',
    ),
    "stays": (
        "stay[]",
        "'{\"(2026-02-01,,)\"}'",
        '[{"since":"2026-02-01","until":null,"rate":null}]',
    ),
    "moment": ("timestamptz", "'2026-02-01 12:00:00.5+00'", '"2026-02-01T12:00:00.5+00:00"'),
    "time": ("timestamp", "'2026-02-01 12:00'", '"2026-02-01T12:00:00"'),
    "moments": (
        "tstzrange",
        "'[2026-02-01 12:00+00,)'",
        r'"[\"2026-02-01 12:00:00+00\",)"',
    ),
    "interval": ("interval", "'1 day 02:03'", '"1 day 02:03:00"'),
    "money": ("money", "1234.5::numeric::money", '"$1,234.50"'),
    "relation": ("regclass", """'public."Odd"'::regclass""", r'"public.\"Odd\""'),
    "type": ("regtype", "'public.mood'::regtype", '"public.mood"'),
    "mood": ("mood", """'so "so"'""", r'"so \"so\""'),
    "moods": ("mood[]", """ARRAY['good'::mood]""", '["good"]'),
    "bits": ("bit(3)", "B'101'", '"101"'),
    "padded": ("char(4)", "'ab'", '"ab  "'),
    "nothing": ("text", "NULL", "null"),
}  # fmt: skip
# Those that a primary key may have, in three columns.
KEYS = [
    ("date", "moment", "double"),
    ("interval", "bytes", "fixed"),
    ("relation", "money", "days"),
    ("dates", "stay", "mood"),
    ("big", "huge", "nan"),
    ("workday", "moments", "padded"),
]
SETTINGS = """
    SET extra_float_digits = -10; SET bytea_output = escape; SET datestyle = 'SQL, DMY';
    SET intervalstyle = sql_standard; SET timezone = 'Asia/Tokyo';
    SET search_path = public, pg_catalog;
    SET quote_all_identifiers = on;
    DO $$
    DECLARE
        name text;
    BEGIN
        FOREACH name IN ARRAY ARRAY['de_DE.utf8', 'en_GB.utf8'] LOOP
            BEGIN
                PERFORM set_config('lc_monetary', name, false);
            EXCEPTION WHEN OTHERS THEN
                NULL;  -- the machine does not have it
            END;
        END LOOP;
    END $$;
"""
DEFAULT = "RESET ALL"


def quoted(name: str) -> str:
    return f'"{name}"'


@pytest.fixture
async def things(core_database: str) -> str:
    """The URL of a database with a watched table of all `VALUES`."""
    connection = await asyncpg.connect(core_database)
    columns = ", ".join(f"{quoted(name)} {type}" for name, (type, _, _) in VALUES.items())
    await connection.execute(f"{TYPES}; CREATE TABLE things (id int PRIMARY KEY, {columns})")
    await connection.execute("SELECT brain.watch('things', 'things', $1)", list(VALUES))
    await connection.close()
    return core_database


def insertion(names: list[str]) -> str:
    return ", ".join(VALUES[name][1] for name in names)


def texts(row: str | None) -> dict[str, str]:
    assert row is not None
    return {name: text_of(text) for name, text in split_object(row).items()}


EXPECTED = {name: text for name, (_, _, text) in VALUES.items()}


@pytest.mark.parametrize("settings", [DEFAULT, SETTINGS], ids=["default", "others"])
async def test_an_event_has_every_digit_whatever_the_writer_sets(
    things: str, settings: str
) -> None:
    writer = await asyncpg.connect(things)
    await writer.execute(settings)

    inserted, updated, deleted = await logged_events(
        things,
        writer,
        f"INSERT INTO things VALUES (1, {insertion(list(VALUES))})",
        "UPDATE things SET nothing = 'x'",
        "DELETE FROM things",
    )
    await writer.close()

    changed = EXPECTED | {"nothing": '"x"'}
    assert texts(inserted.data) == EXPECTED
    assert (texts(updated.data), texts(updated.old)) == (changed, EXPECTED)
    assert updated.changed_columns() == ["nothing"]
    assert texts(deleted.old) == changed
    assert inserted.omitted == updated.omitted == deleted.omitted == ()


@pytest.mark.parametrize("settings", [DEFAULT, SETTINGS], ids=["default", "others"])
async def test_the_rows_have_the_texts_of_the_events_whatever_the_reader_sets(
    things: str, settings: str
) -> None:
    connection = await asyncpg.connect(things)
    await connection.execute(f"INSERT INTO things VALUES (1, {insertion(list(VALUES))})")
    await connection.execute(settings)

    (row,) = await rows_of(connection, "things")
    await connection.close()

    assert texts(row) == EXPECTED


@pytest.mark.parametrize("names", KEYS, ids=" ".join)
async def test_a_key_has_one_text_whatever_the_writer_sets(
    core_database: str, names: tuple[str, ...]
) -> None:
    writer = await asyncpg.connect(core_database)
    columns = ", ".join(f"{quoted(name)} {VALUES[name][0]}" for name in names)
    key = ", ".join(map(quoted, names))
    await writer.execute(
        f"{TYPES}; CREATE TABLE things ({columns}, a int, PRIMARY KEY ({key}));"
        "SELECT brain.watch('things', 'things', '{a}')"
    )
    statements = [
        f"INSERT INTO things VALUES ({insertion(list(names))}, 1)",
        "UPDATE things SET a = 2",
        "DELETE FROM things",
    ]
    plain = await logged_events(core_database, writer, *statements)
    await writer.execute(SETTINGS)

    events = plain + await logged_events(core_database, writer, *statements)
    await writer.close()

    assert [event.operation.value for event in events] == list("IUD") * 2
    for event in events:
        assert event.key is not None
        assert [text_of(part) for part in split_array(event.key)] == [EXPECTED[n] for n in names]
