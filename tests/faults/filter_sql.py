"""What filters mean, in SQL of the tests' own: nothing of Brain takes part."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from tests.database.random_filters import Digits, Type

SYMBOLS = {"eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}

parsed = partial(json.loads, parse_int=Digits, parse_float=Digits)
"""Reads JSON with the digits of its numbers as they are."""

# By the beginning of a type's name: the type in which two values are compared. Domains are compared
# as what is below them; an integer with a filter's 1.0 as numeric.
COMPARED_AS = {
    "int2": "numeric",
    "int4": "numeric",
    "int8": "numeric",
    "numeric": "numeric",
    "cents": "numeric",
    "float4": "float4",
    "float8": "float8",
    "text": "text",
    "varchar": "text",
    "short": "text",
    "char": "bpchar",
    "bpchar": "bpchar",
    "boolean": "boolean",
    "uuid": "uuid",
    "mood": "mood",
    "feeling": "mood",
    "date": "date",
    "time": "time",
    "timetz": "timetz",
    "timestamp": "timestamp",
    "timestamptz": "timestamptz",
}
# Of which only the text that PostgreSQL writes is compared.
ONLY_TEXTS = {"interval", "inet", "bytea", "money", "bit", "int4range", "name"}
JSONS = {"json", "jsonb"}


def filter_in_sql(text: str, columns: Mapping[str, Type]) -> str:
    """Return the condition that a filter is, given as JSON."""
    return condition(parsed(text), columns)


def condition(filter: Mapping[str, Any], columns: Mapping[str, Type]) -> str:
    parts = []
    for name, value in filter.items():
        if name in ("and", "or") and isinstance(value, list):
            some = [condition(one, columns) for one in value]
            parts.append(joined(name, some))
        else:
            comparisons = value if isinstance(value, dict) else {"eq": value}
            parts += [
                comparison(name, columns[name], what, operand)
                for what, operand in comparisons.items()
            ]
    return joined("and", parts)


def joined(word: str, conditions: list[str]) -> str:
    if not conditions:
        return "true" if word == "and" else "false"
    return "(" + f" {word} ".join(conditions) + ")"


def comparison(name: str, type: Type, what: str, operand: Any) -> str:
    """Return the condition that a column compares so with a value of a filter."""
    column, kind = identifier(name), base_name(type)
    match what:
        case "is" if kind in JSONS:
            return rf"coalesce(btrim({column}::text, E' \n\r\t') = 'null', true)"
        case "is":
            # Of a composite value with nulls, `IS NULL` says that it is one.
            return f"({column}::text IS NULL)"
        case "in":
            return joined("or", [comparison(name, type, "eq", one) for one in operand])
    value = string(operand)
    if kind in ONLY_TEXTS:
        other = f"{value}::{'text' if kind == 'bit' else kind}"
        return f"({text_of(column)} {SYMBOLS[what]} {text_of(other)})"
    compared = COMPARED_AS[kind]
    collation = ' COLLATE "C"' if compared in ("text", "bpchar") else ""
    return f"({column}::{compared}{collation} {SYMBOLS[what]} {value}::{compared})"


def base_name(type: Type) -> str:
    """Return the name of a type without its modifier and collation."""
    return type.name.split(" ")[0].split("(")[0]


def text_of(value: str) -> str:
    """Return an expression for the text that JSON has of a value."""
    return f"(to_json({value}) #>> '{{}}')"


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def string(value: Any) -> str:
    """Return a value of a filter as a string of SQL."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
