"""Filters on the columns of watched tables: what is refused, and what values become."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest

from brain.database.budget import PINNED, undone
from brain.database.migrations import migrate
from brain.database.row_conditions import bind_condition, condition_in_sql
from brain.database.schema_files import core_schema
from brain.errors import FilterRefused
from brain.message.condition import Condition
from brain.message.condition_binding import comparisons
from brain.message.condition_parsing import parse_condition
from brain.message.filter_index import FilterIndex
from brain.message.matching import Match, Topic
from tests.database.changes import logged_events
from tests.database.random_filters import ICU_COLLATION
from tests.message.conditions import condition_from_json
from tests.postgres import new_database

pytestmark = pytest.mark.postgres_versions

THINGS = """
    CREATE TYPE mood AS ENUM ('sad', 'so so', 'happy');
    CREATE DOMAIN cents AS numeric(12, 2) CHECK (VALUE > 0);
    CREATE TYPE place AS (name text, since date);
    CREATE TABLE things (
        id int PRIMARY KEY, small smallint, total numeric(10, 2), price cents, score real,
        status text, short varchar(3), code char(4), is_open boolean, token uuid, mood mood,
        day date, "when" timestamptz, at timestamp, clock timetz, span interval, address inet,
        details jsonb, tags text[], home place, secret text);
    SELECT brain.watch('things', 'things', '{id,small,total,price,score,status,short,code,is_open,
        token,mood,day,when,at,clock,span,address,details,tags,home}');
"""


async def bound(connection: asyncpg.Connection, where: Any) -> Condition:
    return await bind_condition(connection, "things", parse_condition(where))


NOT_COMPARED = [
    ({"colour": 1}, "things has no column colour; it has id, small, total, price"),
    ({"secret": "x"}, "things has no column secret; it has id, small, total, price"),
    ({"secret": {"is": None}}, "things has no column secret; it has"),
    ({"details": 1}, 'details: values of type jsonb cannot be compared: {"is": null} can be asked'),
    ({"tags": "a"}, "tags: values of type text[] cannot be compared"),
    ({"home": "a"}, "home: values of type public.place cannot be compared"),
    ({"span": {"gt": "1 day"}}, "span: values of type interval have no exact order here: their"),
    ({"address": {"lte": "::1"}}, "address: values of type inet have no exact order here"),
    ({"and": [{"id": 1}, {"or": [{"id": 2}, {"colour": 1}]}]}, "things has no column colour"),
]


@pytest.mark.parametrize(("where", "reason"), NOT_COMPARED, ids=str)
async def test_what_cannot_be_compared_is_refused_by_name_with_a_way_out(
    connection: asyncpg.Connection, where: Any, reason: str
) -> None:
    await connection.execute(THINGS)

    with pytest.raises(FilterRefused) as refused:
        await bound(connection, where)
    with pytest.raises(FilterRefused) as in_sql:
        await condition_in_sql(connection, "things", parse_condition(where))

    assert str(refused.value).startswith(f"where: {reason}")
    assert str(in_sql.value) == str(refused.value)


NO_VALUES = [
    ("id", "12x", 'where: "12x" is no value of id, which is of type integer'),
    ("id", 1.5, "where: 1.5 is no value of id, which is of type integer"),
    ("id", 2**31, "where: 2147483648 is no value of id, which is of type integer"),
    ("id", True, "where: true is no value of id"),
    ("id", " 1", 'where: " 1" is no value of id'),
    ("id", "0x10", 'where: "0x10" is no value of id'),
    ("id", "NaN", 'where: "NaN" is no value of id'),
    ("total", "1e1000", 'where: "1e1000" is no value of total'),
    ("small", 32768, "where: 32768 is no value of small, which is of type smallint"),
    ("total", "", 'where: "" is no value of total, which is of type numeric(10,2)'),
    ("score", 10**39, f"where: 1{'0' * 39} is no value of score, which is of type real"),
    ("status", 1, "where: 1 is no value of status, which is of type text"),
    ("is_open", "true", 'where: "true" is no value of is_open, which is of type boolean'),
    ("is_open", 1, "where: 1 is no value of is_open, which is of type boolean"),
    ("token", "x", 'where: "x" is no value of token, which is of type uuid'),
    (
        "mood",
        "glad",
        'where: "glad" is no value of mood, which is of type public.mood: sad, so so, happy',
    ),
    ("day", "today", 'where: "today" is no value of day, which is of type date, and is written'),
    ("day", "2026-02-30", 'where: "2026-02-30" is no value of day'),
    ("day", "2026-01-31T10:00:00", 'where: "2026-01-31T10:00:00" is no value of day'),
    ("when", "now", 'where: "now" is no value of when, which is of type timestamp with time zone'),
    ("when", "2026-01-31T10:00:00", 'where: "2026-01-31T10:00:00" is no value of when'),
    ("when", "2026-01-31T10:00:00 Europe/Berlin", 'where: "2026-01-31T10:00:00 Europe/Berlin"'),
    ("at", "2026-01-31T10:00:00Z", 'where: "2026-01-31T10:00:00Z" is no value of at, which is of'),
    ("at", "2026-01-31T10:00:00.1234567", 'where: "2026-01-31T10:00:00.1234567" is no value of at'),
    ("clock", "10:00", 'where: "10:00" is no value of clock'),
    ("span", "one day", 'where: "one day" is no value of span, which is of type interval'),
    ("address", "10.0.0.256", 'where: "10.0.0.256" is no value of address'),
]


@pytest.mark.parametrize(("column", "value", "reason"), NO_VALUES)
async def test_what_is_no_value_of_a_type_is_refused(
    connection: asyncpg.Connection, column: str, value: Any, reason: str
) -> None:
    await connection.execute(THINGS)

    for comparison in ({"eq": value}, {"in": [value]}, {"neq": value}):
        with pytest.raises(FilterRefused) as refused:
            await bound(connection, {column: comparison})
        assert str(refused.value).startswith(reason)


VALUES = [
    ("id", "7", "7"),
    ("id", 7.0, "7"),
    ("total", 7.505, "7.505"),
    ("total", 7.50, "7.5"),
    ("total", "NaN", '"NaN"'),
    ("price", -1, "-1"),
    ("score", 16777217, "16777216"),
    ("score", 0.1, "0.1"),
    ("short", "abcd", '"abcd"'),
    ("code", "ab  ", '"ab"'),
    ("token", "A0EEBC999C0B4EF8BB6D6BB9BD380A11", '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"'),
    ("mood", "so so", '"so so"'),
    ("day", "0044-03-15 BC", '"0044-03-15 BC"'),
    ("day", "infinity", '"infinity"'),
    ("when", "2026-01-31T12:00:00.500+05:45", '"2026-01-31T06:15:00.5+00:00"'),
    ("when", "2026-01-31T12:00:00Z", '"2026-01-31T12:00:00+00:00"'),
    ("at", "2026-01-31", '"2026-01-31T00:00:00"'),
    ("clock", "10:00Z", '"10:00:00+00"'),
    ("span", "36 hours", '"36:00:00"'),
    ("address", "10.0.0.1/32", '"10.0.0.1"'),
]


@pytest.mark.parametrize(("column", "value", "json"), VALUES)
async def test_values_become_what_events_have(
    connection: asyncpg.Connection, column: str, value: Any, json: str
) -> None:
    await connection.execute(THINGS)
    # None of these settings shows, in Brain's sessions or in others.
    await connection.execute(
        "SET timezone = 'Asia/Kathmandu'; SET datestyle = 'German, DMY'; SET intervalstyle ="
        " sql_standard; SET extra_float_digits = -10"
    )

    condition = await bound(connection, {column: {"in": [value]}})

    assert condition.json == f'{{"{column}":{{"eq":{json}}}}}'
    assert await bind_condition(connection, "things", condition_from_json(condition.json)) == (
        condition
    )


async def test_the_order_of_an_enum_is_that_of_the_catalog(connection: asyncpg.Connection) -> None:
    await connection.execute(THINGS)
    await connection.execute("ALTER TYPE mood ADD VALUE 'angry' BEFORE 'so so'")

    assert await bound(connection, {"mood": {"lt": "so so"}}) == await bound(
        connection, {"mood": {"in": ["angry", "sad"]}}
    )
    assert await bound(connection, {"mood": {"gt": "happy"}}) == parse_condition({"or": []})


async def test_a_channel_without_a_table_has_values_without_types_or_order(
    connection: asyncpg.Connection,
) -> None:
    equality = {"id": 1, "status": {"in": ["a", True]}, "note": {"neq": "b"}}
    condition = await bind_condition(connection, "news", parse_condition(equality))
    assert {one.column.kind for one in comparisons(condition)} == {"untyped"}
    with pytest.raises(FilterRefused, match="id: gt needs the type of a column, and no table is"):
        await bind_condition(connection, "news", parse_condition({"id": {"gt": 1}}))
    with pytest.raises(FilterRefused, match="no table is watched on news"):
        await condition_in_sql(connection, "news", condition)


async def test_a_column_that_was_dropped_is_refused(connection: asyncpg.Connection) -> None:
    await connection.execute(THINGS)
    condition = await bound(connection, {"status": "open"})
    await connection.execute("ALTER TABLE things DROP status")

    with pytest.raises(FilterRefused, match="the column status was dropped or renamed"):
        await bound(connection, {"status": "open"})
    with pytest.raises(FilterRefused, match="the column status was dropped or renamed"):
        await condition_in_sql(connection, "things", condition)


async def test_texts_that_are_equal_by_their_collation_alone_are_refused(
    connection: asyncpg.Connection,
) -> None:
    if not await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_collation WHERE collname = $1)", ICU_COLLATION
    ):
        pytest.skip("this PostgreSQL has no ICU")
    await connection.execute(
        """
        CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        CREATE TABLE things (id int PRIMARY KEY, name text COLLATE ci);
        SELECT brain.watch('things', 'things', '{id,name}');
        """
    )

    assert (await bound(connection, {"name": {"is": None}})).size == 1
    for comparison in ("eq", "neq", "gt"):
        with pytest.raises(FilterRefused, match=r"name: by its collation ci different texts are"):
            await bound(connection, {"name": {comparison: "x"}})


async def test_values_count_as_postgresql_writes_them(connection: asyncpg.Connection) -> None:
    await connection.execute(THINGS)
    where = {"total": {"in": [f"{n}e500" for n in range(1, 90)]}}
    assert len(parse_condition(where).json) < 2000

    with pytest.raises(FilterRefused, match="where: a filter may have 32768 bytes"):
        await bound(connection, where)


HOSTILE = """
    CREATE TABLE stolen (who text);
    CREATE FUNCTION steal(text) RETURNS text LANGUAGE plpgsql AS
        $$BEGIN INSERT INTO public.stolen VALUES (current_user); RETURN $1; END$$;
    CREATE TYPE mood AS ENUM ('sad', 'happy');
    CREATE FUNCTION mood_of(text) RETURNS mood LANGUAGE plpgsql AS
        $$BEGIN PERFORM public.steal('x'); RETURN 'sad'; END$$;
    CREATE CAST (text AS mood) WITH FUNCTION mood_of(text) AS IMPLICIT;
    CREATE FUNCTION mood_json(mood) RETURNS json LANGUAGE plpgsql AS
        $$BEGIN PERFORM public.steal('x'); RETURN '1'; END$$;
    CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood);
    CREATE FUNCTION mood_eq(mood, text) RETURNS bool LANGUAGE plpgsql AS
        $$BEGIN PERFORM public.steal('x'); RETURN true; END$$;
    CREATE OPERATOR = (LEFTARG = mood, RIGHTARG = text, FUNCTION = mood_eq);
    CREATE DOMAIN checked AS text CHECK (steal(VALUE) IS NOT NULL);
    CREATE TABLE things (id int PRIMARY KEY, mood mood, name checked);
    SELECT brain.watch('things', 'things', '{id,mood,name}');
"""


async def test_nothing_that_the_owner_of_a_type_has_defined_is_called(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(HOSTILE)

    for where in ({"mood": "sad"}, {"mood": {"gt": "sad"}}, {"name": "x"}, {"name": {"lt": "x"}}):
        await condition_in_sql(connection, "things", await bound(connection, where))

    assert await connection.fetchval("SELECT count(*) FROM stolen") == 0


async def found_in_sql(connection: asyncpg.Connection, condition: Condition) -> list[str]:
    """Return the ids of the things that match, as a snapshot would read them."""
    text = await condition_in_sql(connection, "things", condition)
    await connection.execute("SELECT brain.open_reader()")
    async with undone(connection):
        await connection.execute(PINNED)
        rows = await connection.fetch(
            "SELECT * FROM pg_temp.brain_read($1) r (id)",
            f"SELECT r.id FROM ONLY public.things r WHERE {text} ORDER BY r.id",
        )
    return [row["id"] for row in rows]


async def test_a_condition_narrows_what_a_snapshot_selects(connection: asyncpg.Connection) -> None:
    """Row rules come first, whatever a filter has in it."""
    await connection.execute(THINGS)
    await connection.execute(
        """
        INSERT INTO things (id, status, total) VALUES (1, 'open', 5), (2, 'open', 15), (3, 'x', 15);
        SELECT brain.restrict('things', '{"status": "status"}');
        """
    )
    (access,) = await connection.fetch(
        """SELECT allowed FROM brain.row_access('{things}', '{"status": "open"}')"""
    )
    condition = await bound(connection, {"or": [{"total": {"gt": 10}}, {"id": {"gt": 2}}]})
    statement = await connection.fetchval(
        "SELECT brain.select_statement(w, false, $1::text::jsonb) FROM brain.watched w"
        " WHERE channel = 'things'",
        access["allowed"],
    )
    text = await condition_in_sql(connection, "things", condition)
    await connection.execute("SELECT brain.open_reader()")
    async with undone(connection):
        await connection.execute(PINNED)
        rows = await connection.fetch(
            "SELECT * FROM pg_temp.brain_read($1) r (data)", f"{statement} AND {text}"
        )

    assert [json.loads(row["data"])["id"] for row in rows] == [2]


async def test_a_value_is_a_literal_whatever_it_has_in_it(
    database: str, connection: asyncpg.Connection
) -> None:
    name = "a\"b'c\\d $1 %s"
    quoted = '"' + name.replace('"', '""') + '"'
    values = ["'; DROP TABLE things; --", "\\", "\\'", "$$", "{a,b}", '"', "NULL", "%s %L", "\n"]
    await connection.execute(f"CREATE TABLE things (id int PRIMARY KEY, {quoted} text)")
    await connection.execute("SELECT brain.watch('things', 'things', $1)", ["id", name])
    await connection.executemany("INSERT INTO things VALUES ($1, $2)", list(enumerate(values)))

    for number, value in enumerate(values):
        assert await found_in_sql(connection, await bound(connection, {name: value})) == [
            str(number)
        ]
    everything = await bound(connection, {name: {"in": values}})
    assert len(await found_in_sql(connection, everything)) == len(values)


async def test_values_that_are_too_large_for_the_log_are_found_in_sql(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        """
        CREATE TABLE things (id int PRIMARY KEY, body text, note text);
        SELECT brain.watch('things', 'things', '{id,body,note}', column_bytes => 8192);
        """
    )
    (event,) = await logged_events(
        database, connection, "INSERT INTO things VALUES (1, repeat('x', 9000))"
    )
    assert event.omitted == ("body",)

    expected = {
        json.dumps({"body": {"neq": "y"}}): Match.MATCHES,
        json.dumps({"body": "y"}): None,
        json.dumps({"body": {"is": None}}): None,
        json.dumps({"body": {"gt": "w"}}): Match.UNDECIDED,
        json.dumps({"body": {"gt": "y"}}): Match.UNDECIDED,
        json.dumps({"body": {"gt": "y"}, "note": "a"}): None,
        json.dumps({"or": [{"body": {"gt": "y"}}, {"note": {"is": None}}]}): Match.MATCHES,
    }
    for text, match in expected.items():
        condition = await bind_condition(connection, "things", condition_from_json(text))
        index: FilterIndex[str] = FilterIndex()
        index.add(Topic("things", condition=condition), "client")
        assert index.match(event) is match, text
        if match is not Match.UNDECIDED:
            assert bool(await found_in_sql(connection, condition)) == (match is Match.MATCHES)


async def test_a_database_of_another_encoding_compares_by_code_point(postgres: str) -> None:
    """The bytes of EUC_JP have another order than the characters."""
    async with new_database(
        postgres, "template0 ENCODING 'EUC_JP' LC_COLLATE 'C' LC_CTYPE 'C'"
    ) as url:
        await migrate(url, [core_schema()])
        connection = await asyncpg.connect(url)
        try:
            texts = ["a", "é", "一", "ア", "亜", "¥"]
            storable = [t for t in texts if await is_storable(connection, t)]
            await connection.execute("CREATE TABLE things (id int PRIMARY KEY, name text)")
            await connection.execute("SELECT brain.watch('things', 'things', '{id,name}')")
            await connection.executemany(
                "INSERT INTO things VALUES ($1, $2)", list(enumerate(storable))
            )
            for text in storable:
                condition = await bound(connection, {"name": {"lt": text}})
                lower = [str(n) for n, one in enumerate(storable) if one < text]
                assert await found_in_sql(connection, condition) == lower
            assert len(storable) > 4
            with pytest.raises(FilterRefused, match="a character that the database cannot have"):
                await bound(connection, {"name": "\U0001f600"})
        finally:
            await connection.close()


async def is_storable(connection: asyncpg.Connection, text: str) -> bool:
    try:
        await connection.fetchval("SELECT $1::text", text)
    except asyncpg.UntranslatableCharacterError:
        return False
    return True
