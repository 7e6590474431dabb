"""Reads the watched tables and the types of their columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import asyncpg

from brain.database.connection import Queryable
from brain.row_types.model import (
    Array,
    Catalog,
    CompositeType,
    EnumType,
    Field,
    Named,
    Scalar,
    TypeName,
    ValueType,
    WatchedTable,
)

# A NOT NULL that is NOT VALID, from PostgreSQL 18 on, leaves nulls in the rows that there were. The
# NOT NULL of a domain is no help: PostgreSQL does not check what a subquery returns for one.
COLUMNS = """
    SELECT w.channel, w.table_name, n.nspname AS schema, c.relname AS name, l.name AS column,
           a.atttypid AS type, a.atttypmod AS modifier,
           a.attnotnull AND NOT EXISTS (
               SELECT FROM pg_constraint k
                WHERE k.conrelid = c.oid AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum]
                  AND NOT k.convalidated) AS is_not_null,
           l.name = ANY (w.key_columns) AS is_key,
           coalesce(brain.is_too_large(a.atttypid), false) AS is_too_large
      FROM brain.watched w CROSS JOIN unnest(w.columns) WITH ORDINALITY l (name, place)
      LEFT JOIN pg_class c ON c.oid = w.relation
      LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = l.name AND NOT a.attisdropped
     ORDER BY w.channel, l.place
"""

# Types with those that they are made of. `modifier` is that of a domain. As to_json has it, an
# array is what is subscripted like one.
TYPES = """
    WITH RECURSIVE made_of (oid, part) AS (
        SELECT t.oid, unnest(CASE
                   WHEN t.typtype = 'd' THEN ARRAY[t.typbasetype]
                   WHEN t.typtype = 'r' THEN ARRAY[(SELECT r.rngsubtype FROM pg_range r
                                                     WHERE r.rngtypid = t.oid)]
                   WHEN t.typtype = 'c' THEN ARRAY(
                       SELECT a.atttypid FROM pg_attribute a
                        WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)
                   WHEN t.typelem <> 0 THEN ARRAY[t.typelem] END)
          FROM pg_type t),
    reached (oid) AS (
        SELECT unnest($1::oid[])
         UNION
        SELECT m.part FROM reached r JOIN made_of m ON m.oid = r.oid)
    SELECT t.oid, n.nspname AS schema, t.typname AS name, t.typtype::text AS kind,
           t.typbasetype AS base, t.typtypmod AS modifier, t.typlen > 0 AS is_fixed,
           CASE WHEN t.typsubscript = 'array_subscript_handler'::regproc
                THEN t.typelem END AS element,
           brain.is_trusted(t.oid) AS is_trusted,
           t.oid IN ('json'::regtype, 'jsonb'::regtype) OR (t.oid >= 16384 AND EXISTS (
               SELECT FROM pg_cast k WHERE k.castsource = t.oid AND k.casttarget = 'json'::regtype
                  AND k.castmethod = 'f')) AS is_json,
           (SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = t.oid) AS subtype,
           ARRAY(SELECT e.enumlabel FROM pg_enum e WHERE e.enumtypid = t.oid
                  ORDER BY e.enumsortorder)::text[] AS labels,
           ARRAY(SELECT a.attname FROM pg_attribute a WHERE a.attrelid = t.typrelid
                    AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)::text[] AS fields,
           ARRAY(SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = t.typrelid
                    AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS field_types
      FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
     WHERE t.oid IN (SELECT oid FROM reached)
"""

SCALARS: Mapping[str, Scalar] = {
    "bool": Scalar.BOOLEAN,
    "int2": Scalar.INTEGER,
    "int4": Scalar.INTEGER,
    "int8": Scalar.BIGINT,
    "numeric": Scalar.NUMERIC,
    "float4": Scalar.REAL,
    "float8": Scalar.DOUBLE,
    "date": Scalar.DATE,
    "time": Scalar.TIME,
    "timetz": Scalar.TIME,
    "timestamp": Scalar.TIMESTAMP,
    "timestamptz": Scalar.TIMESTAMP,
    "uuid": Scalar.UUID,
}

# A value of up to 8 KiB as JSON is always sent. A character takes at most six bytes there.
MOST_CHARACTERS = 8190 // 6
# They have a header with their length, and are short nevertheless.
SHORT_TYPES = frozenset({"inet", "cidr"})
# The modifier of varchar(n) and char(n) is n and the length of a header.
HEADER_BYTES = 4


async def read_catalog(connection: Queryable) -> Catalog:
    """Return the watched tables, with the columns and types that they have now."""
    columns = await connection.fetch(COLUMNS)
    oids = {row["type"] for row in columns if row["type"] is not None}
    types = Types({row["oid"]: row for row in await connection.fetch(TYPES, list(oids))})
    tables: dict[str, WatchedTable] = {}
    for row in columns:
        if row["name"] is not None:
            name = TypeName(row["schema"], row["name"])
            table = tables.get(row["channel"], WatchedTable(name, row["channel"], ()))
            with_this = (*table.columns, types.column(row))
            tables[row["channel"]] = WatchedTable(name, row["channel"], with_this)
    return Catalog(
        tables=sorted(tables.values(), key=lambda table: table.name),
        enums=sorted(types.enums.values(), key=lambda enum: enum.name),
        composites=list(types.composites.values()),
        dropped=sorted({row["table_name"] for row in columns if row["name"] is None}),
    )


@dataclass(frozen=True, slots=True)
class Types:
    """Translates types of PostgreSQL, as `brain.json_expression` has their values shown."""

    by_oid: Mapping[int, asyncpg.Record]
    enums: dict[int, EnumType] = field(default_factory=dict)
    """Those that were met."""
    composites: dict[int, CompositeType] = field(default_factory=dict)

    def column(self, row: asyncpg.Record) -> Field:
        if row["type"] is None:
            return Field(row["column"], Scalar.NULL)
        return Field(
            row["column"],
            self.shown_as_text(row["type"]) if row["is_too_large"] else self.value(row["type"]),
            is_nullable=not row["is_not_null"],
            is_unbounded=not row["is_key"] and not self.is_bounded(row["type"], row["modifier"]),
        )

    def base(self, oid: int) -> asyncpg.Record:
        """Return the type below domains."""
        while self.by_oid[oid]["kind"] == "d":
            oid = self.by_oid[oid]["base"]
        return self.by_oid[oid]

    def value(self, oid: int) -> ValueType:
        type = self.base(oid)
        if type["element"] is not None:
            return self.array(type)
        if type["kind"] == "e":
            name = TypeName(type["schema"], type["name"])
            self.enums[type["oid"]] = EnumType(name, tuple(type["labels"]))
            return Named(name)
        if type["kind"] == "c":
            return self.composite(type)
        if type["is_json"] and type["is_trusted"]:
            return Scalar.JSON
        is_own = type["schema"] == "pg_catalog"
        return SCALARS.get(type["name"], Scalar.TEXT) if is_own else Scalar.TEXT

    def array(self, type: asyncpg.Record) -> Array:
        element = self.base(type["element"])
        if element["is_trusted"]:
            return Array(self.value(element["oid"]))
        if element["kind"] == "c":
            return Array(self.value(element["oid"]), is_flat=True)
        return Array(self.value(element["oid"]) if element["kind"] == "e" else Scalar.TEXT)

    def composite(self, type: asyncpg.Record) -> Named:
        name = TypeName(type["schema"], type["name"])
        if type["oid"] not in self.composites:
            parts = zip(type["fields"], type["field_types"], strict=True)
            fields = tuple(Field(field, self.value(oid)) for field, oid in parts)
            self.composites[type["oid"]] = CompositeType(name, fields)
        return Named(name)

    def shown_as_text(self, oid: int) -> ValueType:
        """Return how a composite type of too many fields is shown, or an array of one."""
        return Scalar.TEXT if self.base(oid)["element"] is None else Array(Scalar.TEXT)

    def is_bounded(self, oid: int, modifier: int) -> bool:
        """Return True if every value of a type is short enough to be sent."""
        while (type := self.by_oid[oid])["kind"] == "d":
            oid, modifier = type["base"], type["modifier"]
        if type["is_fixed"] or (type["is_trusted"] and type["name"] in SHORT_TYPES):
            return True
        if type["kind"] == "r":
            return bool(self.base(type["subtype"])["is_fixed"])
        if type["schema"] != "pg_catalog" or modifier < 0:
            return False
        if type["name"] in ("varchar", "bpchar"):
            return modifier - HEADER_BYTES <= MOST_CHARACTERS
        if type["name"] in ("bit", "varbit"):
            return modifier <= MOST_CHARACTERS
        return bool(type["name"] == "numeric")
