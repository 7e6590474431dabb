"""What the catalog says of columns: which may be null, and what becomes of altered tables."""

from __future__ import annotations

import asyncpg
import pytest

from brain.row_types.catalog import read_catalog
from brain.row_types.model import Array, Field, Named, Scalar, TypeName, WatchedTable

pytestmark = pytest.mark.postgres_versions


async def columns_of(connection: asyncpg.Connection, table: str) -> dict[str, Field]:
    return {column.name: column for column in (await table_of(connection, table)).columns}


async def table_of(connection: asyncpg.Connection, table: str) -> WatchedTable:
    catalog = await read_catalog(connection)
    return next(one for one in catalog.tables if one.name.name == table)


async def test_a_column_is_nullable_unless_the_table_says_otherwise(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(
        """
        CREATE DOMAIN present AS text NOT NULL;
        CREATE TABLE orders (id integer PRIMARY KEY, a text, b text NOT NULL, c present,
                             d present NOT NULL, e text GENERATED ALWAYS AS ('x') STORED);
        SELECT brain.watch('orders', 'orders', '{id,a,b,c,d,e}');
        INSERT INTO orders VALUES (1, NULL, '', (SELECT ''::present WHERE false), '');
        """
    )

    columns = await columns_of(connection, "orders")

    assert [name for name, column in columns.items() if column.is_nullable] == ["a", "c", "e"]


async def test_a_column_whose_not_null_is_not_validated_is_nullable(
    connection: asyncpg.Connection,
) -> None:
    if connection.get_server_version().major < 18:
        pytest.skip("from PostgreSQL 18 on")
    await connection.execute(
        """
        CREATE TABLE orders (id integer PRIMARY KEY, a text);
        INSERT INTO orders VALUES (1, NULL);
        ALTER TABLE orders ADD CONSTRAINT present NOT NULL a NOT VALID;
        SELECT brain.watch('orders', 'orders', '{id,a}');
        """
    )
    assert (await columns_of(connection, "orders"))["a"].is_nullable

    await connection.execute("UPDATE orders SET a = ''")
    await connection.execute("ALTER TABLE orders VALIDATE CONSTRAINT present")
    assert not (await columns_of(connection, "orders"))["a"].is_nullable


async def test_altered_columns_have_the_types_that_they_have_now(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(
        """
        CREATE TABLE orders (id integer PRIMARY KEY, total integer, gone text NOT NULL);
        SELECT brain.watch('orders', 'orders', '{id,total,gone}');
        ALTER TABLE orders ALTER total TYPE numeric;
        ALTER TABLE orders DROP gone;
        ALTER TABLE orders RENAME TO purchases;
        """
    )

    table = await table_of(connection, "purchases")

    assert (table.name, table.channel) == (TypeName("public", "purchases"), "orders")
    assert [column.type for column in table.columns] == [
        Scalar.INTEGER,
        Scalar.NUMERIC,
        Scalar.NULL,
    ]


async def test_a_dropped_table_has_no_type_and_is_named(connection: asyncpg.Connection) -> None:
    await connection.execute(
        """
        CREATE TABLE orders (id integer PRIMARY KEY);
        SELECT brain.watch('orders', 'orders', '{id}');
        DROP TABLE orders;
        """
    )

    catalog = await read_catalog(connection)

    assert list(catalog.dropped) == ["public.orders"]
    assert "orders" not in [table.channel for table in catalog.tables]


async def test_partitions_and_children_have_the_type_of_the_table_that_is_watched(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(
        """
        CREATE TABLE orders (id integer PRIMARY KEY, note text) PARTITION BY LIST (id);
        CREATE TABLE orders_1 PARTITION OF orders FOR VALUES IN (1);
        SELECT brain.watch('orders', 'orders', '{id,note}');
        CREATE TABLE parent (id integer PRIMARY KEY, note text);
        CREATE TABLE child (PRIMARY KEY (id), more text) INHERITS (parent);
        SELECT brain.watch('child', 'child', '{id,note,more}');
        """
    )

    assert [*await columns_of(connection, "orders")] == ["id", "note"]
    assert [*await columns_of(connection, "child")] == ["id", "note", "more"]


async def test_a_type_of_too_many_fields_is_the_text_that_it_is_sent_as(
    connection: asyncpg.Connection,
) -> None:
    fields = ", ".join(f"f{number} integer" for number in range(201))
    await connection.execute(
        f"""
        CREATE TYPE wide AS ({fields});
        CREATE TABLE orders (id integer PRIMARY KEY, one wide, several wide[]);
        SELECT brain.watch('orders', 'orders', '{{id,one,several}}');
        """
    )

    columns = await columns_of(connection, "orders")

    assert columns["one"].type is Scalar.TEXT
    assert columns["several"].type == Array(Scalar.TEXT)
    assert (await read_catalog(connection)).composites == []


async def test_a_type_comes_after_those_that_it_is_made_of(connection: asyncpg.Connection) -> None:
    await connection.execute(
        """
        CREATE TYPE z_inner AS (x integer);
        CREATE TYPE a_outer AS (y z_inner[]);
        CREATE TABLE orders (id integer PRIMARY KEY, at a_outer);
        SELECT brain.watch('orders', 'orders', '{id,at}');
        """
    )

    catalog = await read_catalog(connection)

    assert [one.name.name for one in catalog.composites] == ["z_inner", "a_outer"]
    (field,) = catalog.composites[1].fields
    assert field.type == Array(Named(TypeName("public", "z_inner")), is_flat=True)


async def test_a_type_of_an_extension_with_a_cast_to_json_is_json(
    connection: asyncpg.Connection,
) -> None:
    try:
        await connection.execute("CREATE EXTENSION hstore")
    except asyncpg.PostgresError as error:
        pytest.skip(f"the server has no hstore: {error}")
    await connection.execute(
        """
        CREATE TABLE orders (id integer PRIMARY KEY, tags hstore);
        SELECT brain.watch('orders', 'orders', '{id,tags}');
        """
    )

    assert (await columns_of(connection, "orders"))["tags"].type is Scalar.JSON


BOUNDED = {
    "smallint": True,
    "timestamptz": True,
    "uuid": True,
    "varchar(1365)": True,
    "varchar(1366)": False,
    "varchar": False,
    "char(10)": True,
    "text": False,
    "numeric": False,
    "numeric(1000, 2)": True,
    "short": True,
    "inet": True,
    "bit varying": False,
    "bit(100)": True,
    "tstzrange": True,
    "numrange": False,
    "int4multirange": False,
    "jsonb": False,
    "integer[]": False,
}


async def test_only_a_type_with_short_values_is_never_left_out(
    connection: asyncpg.Connection,
) -> None:
    columns = ", ".join(f"c{number} {type}" for number, type in enumerate(BOUNDED))
    await connection.execute("CREATE DOMAIN short AS varchar(10)")
    await connection.execute(f"CREATE TABLE orders (id text PRIMARY KEY, {columns})")
    names = ["id", *(f"c{number}" for number in range(len(BOUNDED)))]
    await connection.execute("SELECT brain.watch('orders', 'orders', $1)", names)

    found = await columns_of(connection, "orders")

    assert not found.pop("id").is_unbounded  # a key is always sent
    assert dict(zip(BOUNDED, (not c.is_unbounded for c in found.values()), strict=True)) == BOUNDED
