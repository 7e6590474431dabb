from __future__ import annotations

import json
from itertools import pairwise

import pytest

from brain.message.comparison_keys import Column, Kind, NoKey, RowValues, key_of
from brain.message.row import Row

ASCENDING: list[tuple[Kind, list[str]]] = [
    ("number", ['"-Infinity"', "-1e131071", "-0.1", "0", "1e-400", "1", "1e400"]),
    ("number", ["9007199254740992", "9007199254740993", '"Infinity"', '"NaN"']),
    ("boolean", ["false", "true"]),
    ("text", ['""', '"A"', '"a"', '"a "', '"\\u00e4"', '"\\uffff"', '"\\ud83d\\ude00"']),
    ("padded", ['""', '"a"', '"a\\t"', '"a!"', '"a!  !"']),
    ("date", ['"-infinity"', '"0044-03-15 BC"', '"0001-12-31 BC"', '"0001-01-01"']),
    ("date", ['"9999-12-31"', '"10000-01-01"', '"infinity"']),
    ("time", ['"00:00:00"', '"00:00:00.000001"', '"00:00:00.1"', '"24:00:00"']),
    ("timetz", ['"01:00:00+02"', '"00:00:00+00"', '"01:00:00+00:30"', '"01:00:00-00:00:01"']),
    ("timetz", ['"02:00:00+01"', '"01:00:00+00"', '"00:00:00-01"']),
    ("timestamp", ['"-infinity"', '"0001-01-01T00:00:00 BC"', '"2026-01-31T00:00:00.5"']),
    ("timestamp", ['"2026-01-31T00:00:00.51"', '"294276-01-01T00:00:00"', '"infinity"']),
    ("timestamptz", ['"2026-01-31T00:00:00+00:00"', '"2026-01-31T00:00:00.000001+00:00"']),
]
EQUAL: list[tuple[Kind, str, str]] = [
    ("number", "0", "-0"),
    ("number", "1.10", "1.1"),
    ("number", "1e+300", "1" + "0" * 300),
    ("number", '"NaN"', '"NaN"'),
    ("padded", '"a"', '"a   "'),
    ("text", '"\\u00e9"', '"é"'),
]
NO_VALUES: list[tuple[Kind, str]] = [
    ("number", '"1"'),
    ("number", "true"),
    ("number", "[1]"),
    ("boolean", "1"),
    ("text", "1"),
    ("text", "{}"),
    ("date", '"2026-01-31T00:00:00"'),
    ("date", "1"),
    ("timestamp", '"2026-01-31T00:00:00+00:00"'),
    ("timestamptz", '"2026-01-31T00:00:00"'),
    ("timestamptz", '"2026-01-31T00:00:00+01:00"'),
    ("time", '"01:00:00+00"'),
]


@pytest.mark.parametrize(("kind", "texts"), ASCENDING)
def test_values_have_the_order_of_postgresql(kind: Kind, texts: list[str]) -> None:
    for lower, higher in pairwise(texts):
        assert key_of(kind, lower) < key_of(kind, higher)
        assert key_of(kind, lower) != key_of(kind, higher)


@pytest.mark.parametrize(("kind", "one", "other"), EQUAL)
def test_equal_values_have_equal_keys(kind: Kind, one: str, other: str) -> None:
    assert key_of(kind, one) == key_of(kind, other)
    assert hash(key_of(kind, one)) == hash(key_of(kind, other))
    assert not key_of(kind, one) < key_of(kind, other)


@pytest.mark.parametrize(("kind", "text"), NO_VALUES)
def test_a_value_of_another_type_has_no_key(kind: Kind, text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        key_of(kind, text)
    assert RowValues(Row(f'{{"a": {text}}}'), ()).key(Column("a", kind)) is NoKey.UNKNOWN


def test_it_is_known_why_a_row_has_no_value() -> None:
    values = RowValues(Row('{"a": null, "b": 1}'), ("c",))

    assert values.key(Column("a", "number")) is NoKey.NULL
    assert values.key(Column("b", "text")) is NoKey.UNKNOWN
    assert values.key(Column("b", "number")) == key_of("number", "1")
    assert values.key(Column("c", "number")) is NoKey.OMITTED
    assert values.key(Column("d", "number")) is NoKey.UNKNOWN
    assert RowValues(Row("{}"), None).key(Column("d", "number")) is NoKey.OMITTED


def test_a_column_without_a_type_cannot_be_compared() -> None:
    with pytest.raises(TypeError, match="looked up first"):
        RowValues(Row(json.dumps({"a": 1})), ()).key(Column("a"))
