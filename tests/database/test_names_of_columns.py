"""Any name that PostgreSQL allows for a column, and sessions with any setting for PL/pgSQL."""

from __future__ import annotations

import asyncpg
import pytest

from tests.database.changes import logged_events
from tests.database.log_reading import keys, parsed, rows_of

pytestmark = pytest.mark.postgres_versions

NAMES = [
    "x$capture$y",
    "$body$",
    "x$write$y",
    "$",
    '"; DROP TABLE t; --',
    "'; DROP TABLE t; --",
    "it's",
    'a "b" c',
    "back\\slash",
    "\\'",
    "\\",
    "E'\\n'",
    "new\nline",
    "tab\t",
    "%1$s %s %I %",
    "x" * 63,
    "\N{LATIN SMALL LETTER E WITH ACUTE}" * 31,
    "\N{GRINNING FACE}",
    " ",
    "a.b",
    "*",
    "/* */",
    "-- ",
    "{1,2}",
    "1",
    *("new", "old", "NEW", "key", "data", "id", "parts", "part", "r", "side", "former"),
    *("former_key", "event_id", "is_complete", "new_parts", "old_parts", "tg_op", "name"),
    *("channel", "value", "number", "null", "NULL", "select", "user", "found", "ctid_", "events_0"),
]
SETTINGS = [
    "SET check_function_bodies = off",
    "SET plpgsql.extra_errors = 'all'; SET plpgsql.extra_warnings = 'all'",
    "SET plpgsql.variable_conflict = 'use_column'",
    "SET plpgsql.variable_conflict = 'use_variable'",
    "SET plpgsql.check_asserts = off; SET plpgsql.print_strict_params = on",
    "SET standard_conforming_strings = off; SET backslash_quote = off",
    "SET quote_all_identifiers = on; SET array_nulls = off; SET transform_null_equals = on",
    "SET search_path = ''",
    "SET plan_cache_mode = force_generic_plan",
    "SET default_transaction_isolation = serializable",
]


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


async def watch(connection: asyncpg.Connection, key: list[str], columns: list[str]) -> None:
    definitions = ", ".join(f"{identifier(name)} text" for name in columns)
    names = ", ".join(map(identifier, key))
    await connection.execute(
        f"CREATE TABLE public.things ({definitions}, PRIMARY KEY ({names}));"
        "CREATE TABLE public.t (id int)"
    )
    await connection.execute("SELECT brain.watch('public.things', 'things', $1)", columns)


@pytest.mark.parametrize("settings", ["", *SETTINGS])
async def test_a_column_may_have_any_name(core_database: str, settings: str) -> None:
    watcher, writer = [await asyncpg.connect(core_database) for _ in range(2)]
    if settings:
        await watcher.execute(settings)
        await writer.execute(settings)
    key, *others = NAMES
    await watch(watcher, [key], NAMES)
    values = ", ".join(f"'{number}'" for number in range(len(NAMES)))

    inserted, updated, gone, moved, deleted = await logged_events(
        core_database,
        writer,
        f"INSERT INTO public.things VALUES ({values})",
        "UPDATE public.things SET " + ", ".join(f"{identifier(name)} = 'x'" for name in others),
        f"UPDATE public.things SET {identifier(key)} = 'moved'",
        "DELETE FROM public.things",
    )
    rows = await rows_of(watcher, "things")
    await watcher.close()
    await writer.close()

    before = {name: str(number) for number, name in enumerate(NAMES)}
    after = before | dict.fromkeys(others, "x")
    assert parsed(inserted.data) == parsed(updated.old) == before
    assert parsed(updated.data) == parsed(gone.old) == parsed(moved.old) == after
    assert parsed(moved.data) == parsed(deleted.old) == after | {key: "moved"}
    assert rows == []
    for event in (inserted, updated, gone, moved, deleted):
        assert event.omitted == ()


@pytest.mark.one_version
@pytest.mark.parametrize("name", NAMES)
async def test_a_key_may_have_any_name_and_a_large_row_too(core_database: str, name: str) -> None:
    """A large row is read column by column, by other statements than a small one."""
    connection = await asyncpg.connect(core_database)
    large = "a" if name != "a" else "b"
    await watch(connection, [name], [name, large])
    text = "x" * 300_000

    events = await logged_events(
        core_database,
        connection,
        f"INSERT INTO public.things VALUES ('1', '{text}')",
        f"UPDATE public.things SET {identifier(name)} = '2'",
        "DELETE FROM public.things",
    )
    await connection.execute(f"INSERT INTO public.things VALUES ('3', '{text}')")
    (row,) = await rows_of(connection, "things")
    await connection.close()

    assert [event.operation.value for event in events] == ["I", "D", "U", "D"]
    assert keys(events) == [["1"], ["1"], ["2"], ["2"]]
    assert parsed(events[2].data) == {name: "2"}
    assert parsed(row) == {name: "3"}
    assert {event.omitted for event in events} == {(large,)}


async def test_a_table_may_have_three_hundred_columns(
    core_database: str,
) -> None:
    connection = await asyncpg.connect(core_database)
    names = [f"c{number}" for number in range(300)]
    await watch(connection, ["c7", "c5", "c299"], names)
    values = ", ".join(f"'{name}'" for name in names)

    inserted, updated = await logged_events(
        core_database,
        connection,
        f"INSERT INTO public.things VALUES ({values})",
        "UPDATE public.things SET c51 = repeat('x', 300000)",
    )
    (row,) = await rows_of(connection, "things")
    await connection.close()

    assert keys([inserted, updated]) == [["c7", "c5", "c299"]] * 2
    assert parsed(inserted.data) == {name: name for name in names}
    assert inserted.data == updated.old
    assert updated.data == row
    assert parsed(row) == {name: name for name in names if name != "c51"}
    assert updated.omitted == ("c51",)
