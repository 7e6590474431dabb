"""Writes the types of rows in TypeScript, as Brain's client for it delivers them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from brain.row_types.model import (
    HAVE_NULL,
    Array,
    Catalog,
    CompositeType,
    EnumType,
    Field,
    Scalar,
    ValueType,
    WatchedTable,
)
from brain.row_types.names import Names, commented, names_for, quoted

IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")

# The client subscribes with numbers=string: what a double does not hold, and what is no number of
# JSON, is a string.
SCALARS: Mapping[Scalar, str] = {
    Scalar.BOOLEAN: "boolean",
    Scalar.INTEGER: "number",
    Scalar.BIGINT: "number | string",
    Scalar.NUMERIC: "number | string",
    Scalar.REAL: 'number | "NaN" | "Infinity" | "-Infinity"',
    Scalar.DOUBLE: "number | string",
    Scalar.JSON: "Json",
    Scalar.NULL: "null",
}

JSON = """\
/** Any value of JSON. */
export type Json =
  | null
  | boolean
  | number
  | string
  | readonly Json[]
  | { readonly [name: string]: Json };
"""
NESTED = """\
/** An array of any number of dimensions: PostgreSQL does not fix it. */
export type Nested<T> = (T | null)[] | Nested<T>[];
"""
RESERVED = ("Json", "Nested", "Tables")


def typescript(catalog: Catalog, command: str, *, may_omit: bool = False) -> str:
    """
    Return the source text of the types; `command` is the one that makes it.

    With `may_omit`, members that Brain may leave out because of their size are optional.
    """
    return TypeScript(names_for(catalog, RESERVED), may_omit).text(catalog, command)


class TypeScript:
    def __init__(self, names: Names, may_omit: bool) -> None:
        self._names = names
        self._may_omit = may_omit

    def text(self, catalog: Catalog, command: str) -> str:
        enums = sorted(map(self._enum, catalog.enums))
        interfaces = sorted(
            [
                *(self._table(table) for table in catalog.tables),
                *(self._composite(composite) for composite in catalog.composites),
            ]
        )
        body = [*(text for _, text in enums), *(text for _, text in interfaces)]
        body.append(self._tables(catalog))
        written = "\n".join(body)
        helpers = [
            text
            for name, text in ((r"\bJson\b", JSON), (r"\bNested<", NESTED))
            if re.search(name, written)
        ]
        header = f"// Made by: {command}\n// The rows of the tables that Brain watches.\n"
        return "\n".join([header, *helpers, written])

    def _enum(self, enum: EnumType) -> tuple[str, str]:
        name = self._names.types[enum.name]
        labels = " | ".join(map(literal, enum.labels)) or "never"
        comment = f"/** The enum {commented(str(enum.name))}. */"
        return name, f"{comment}\nexport type {name} = {labels};\n"

    def _table(self, table: WatchedTable) -> tuple[str, str]:
        what = f"A row of {table.name}, on the channel {table.channel}."
        return self._interface(self._names.tables[table.name], what, table.columns)

    def _composite(self, composite: CompositeType) -> tuple[str, str]:
        what = f"A value of the type {composite.name}."
        return self._interface(self._names.types[composite.name], what, composite.fields)

    def _interface(self, name: str, what: str, fields: tuple[Field, ...]) -> tuple[str, str]:
        lines = "".join(f"  {self._member(field)};\n" for field in fields)
        return name, f"/** {commented(what)} */\nexport interface {name} {{\n{lines}}}\n"

    def _member(self, field: Field) -> str:
        mark = "?" if self._may_omit and field.is_unbounded else ""
        text = self._type(field.type)
        if field.is_nullable and field.type not in HAVE_NULL:
            text += " | null"
        return f"{member_name(field.name)}{mark}: {text}"

    def _type(self, type: ValueType) -> str:
        match type:
            case Scalar():
                return SCALARS.get(type, "string")
            case Array(element, is_flat=True):
                return f"({self._type(element)} | null)[] | Nested<string>[]"
            case Array(element):
                return f"Nested<{self._type(element)}>"
        return self._names.types[type.name]

    def _tables(self, catalog: Catalog) -> str:
        tables = sorted(catalog.tables, key=lambda table: table.channel)
        lines = "".join(
            f"  {member_name(table.channel)}: {self._names.tables[table.name]};\n"
            for table in tables
        )
        return (
            "/** The row of each channel, for `createBrain<Tables>()`. */\n"
            f"export interface Tables {{\n{lines}}}\n"
        )


def member_name(name: str) -> str:
    return name if IDENTIFIER.fullmatch(name) else literal(name)


def literal(text: str) -> str:
    return quoted(text, "\\u{{{:x}}}")
