from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brain.message.json_text import (
    dumps,
    key_text,
    scalar,
    scalar_in,
    scan_array,
    scan_object,
    split_array,
    split_object,
    text_of,
)

SPACE = st.text(" \t\n\r", max_size=2)
STRINGS = st.text(max_size=8) | st.text('\\"{}[],: \u2028é\0\ud800', max_size=8)
QUOTED = st.builds(
    lambda text, is_ascii: json.dumps(text, ensure_ascii=is_ascii or has_half(text)),
    STRINGS,
    st.booleans(),
)
NUMBERS = st.from_regex(
    r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?", fullmatch=True
)
SCALARS = st.sampled_from(["null", "true", "false", "1e400", '"\\u0000"', '"\\ud800"'])


def has_half(text: str) -> bool:
    """Return True if a text has half of a surrogate pair, which UTF-8 does not encode."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def spaced(space: str, parts: list[str]) -> str:
    return space + f"{space},{space}".join(parts) + space


def arrays(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(
        lambda space, parts: f"[{spaced(space, parts)}]", SPACE, st.lists(values, max_size=4)
    )


def objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Texts of objects, in which two members may have one name."""
    members = st.builds(
        lambda name, space, value: f"{name}{space}:{space}{value}",
        QUOTED | st.sampled_from(['"a"', '"\\u0061"']),
        SPACE,
        values,
    )
    return st.builds(
        lambda space, parts: f"{{{spaced(space, parts)}}}", SPACE, st.lists(members, max_size=4)
    )


VALUES = st.recursive(
    QUOTED | NUMBERS | SCALARS, lambda inner: arrays(inner) | objects(inner), max_leaves=8
)


def exact(text: str) -> Any:
    """Return a JSON value with numbers as they are written."""
    return json.loads(text, parse_float=str, parse_int=str)


@given(objects(VALUES), SPACE)
def test_an_object_is_split_into_its_members(text: str, space: str) -> None:
    padded = space + text + space
    members = {name: text_of(value) for name, value in split_object(padded).items()}

    assert members == scan_object(padded)
    assert list(members) == list(scan_object(padded))
    assert {name: exact(value) for name, value in members.items()} == exact(text)
    assert all(value in text for value in members.values())


@given(arrays(VALUES), SPACE)
def test_an_array_is_split_into_its_elements(text: str, space: str) -> None:
    padded = space + text + space
    elements = [text_of(value) for value in split_array(padded)]

    assert elements == scan_array(padded)
    assert [exact(value) for value in elements] == exact(text)


def test_of_two_members_with_one_name_the_later_counts() -> None:
    text = '{"a" : 1, "b" : 2, "\\u0061" : 3}'

    for split in (split_object, scan_object):
        assert {name: text_of(value) for name, value in split(text).items()} == {"a": "3", "b": "2"}


DEEP = {
    "arrays": "[" * 5000 + "]" * 5000,
    "objects": '{"a" : ' * 5000 + "1" + "}" * 5000,
    "brackets in strings": '["]}", ' * 5000 + '"[{"' + "]" * 5000,
}


@pytest.mark.parametrize("deep", DEEP.values(), ids=list(DEEP))
def test_the_depth_of_a_member_is_not_limited(deep: str) -> None:
    members = split_object(f'{{"a" : 1, "deep" : {deep}, "b" : "]}}"}}')
    elements = split_array(f'[1, {deep}, "]}}"]')

    assert [text_of(value) for value in members.values()] == ["1", deep, '"]}"']
    assert [text_of(value) for value in elements] == ["1", deep, '"]}"']
    with pytest.raises((RecursionError, msgspec.DecodeError)):
        msgspec.json.decode(deep)


@pytest.mark.parametrize("text", ["1e400", "-1e-400", '"\\u0000"', '"\\ud800"', "9" * 5000])
def test_values_that_parsers_refuse_are_members_like_others(text: str) -> None:
    assert text_of(split_object(f'{{"a" : {text}}}')["a"]) == text
    assert [text_of(value) for value in split_array(f"[{text}]")] == [text]


@pytest.mark.parametrize("name", ['"\\u0000"', '"\\ud800"', '"a\\"b"', '""', '"é"'])
def test_any_string_may_be_a_name(name: str) -> None:
    assert list(split_object(f"{{{name} : 1}}")) == [json.loads(name)]


@pytest.mark.parametrize("split", [split_object, scan_object])
@pytest.mark.parametrize("text", ["[1]", "[]", '"{}"', "null", "1e400", "true", "", " "])
def test_what_is_no_object_is_refused(split: Callable[[str], Any], text: str) -> None:
    with pytest.raises(ValueError, match=r"begins with \{"):
        split(text)


@pytest.mark.parametrize("split", [split_array, scan_array])
@pytest.mark.parametrize("text", ["{}", '{"a" : [1]}', '"[]"', "null", "1e400", ""])
def test_what_is_no_array_is_refused(split: Callable[[str], Any], text: str) -> None:
    with pytest.raises(ValueError, match=r"begins with \["):
        split(text)


@pytest.mark.parametrize(
    "value",
    [
        *("task-1", 'a"b', "a\\b", "a:b", "a,b", "[a]", "{a}", "a[b", "100%", "é", "", " ", '"'),
        *("a\nb", "\u2028", "\\", '\\"', "null", "1", "\x01", "[", "a]", '","', "%3A"),
    ],
)
@pytest.mark.parametrize("is_ascii", [True, False])
def test_the_name_of_a_row_with_a_single_key_is_that_value(value: str, is_ascii: bool) -> None:
    assert key_text(json.dumps([value], ensure_ascii=is_ascii)) == value


@given(STRINGS)
def test_any_text_may_be_a_single_key(value: str) -> None:
    assert key_text(json.dumps([value], ensure_ascii=has_half(value))) == value


@pytest.mark.parametrize(
    "text", ["17", "-1", "1234567890123456789012345678901234567890", "0.10", "1e400", "true"]
)
def test_the_digits_of_a_numeric_key_are_kept(text: str) -> None:
    assert key_text(f"[{text}]") == text
    assert key_text(f'[{text}, "a"]') == f"{text}:a"


@pytest.mark.parametrize("text", ['["a", "b"]', "[[1, 2]]", '{"a" : 1}'])
def test_a_key_of_another_type_is_its_json(text: str) -> None:
    assert key_text(f"[{text}]") == text


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ([7, "b"], "7:b"),
        (["a:b", "c"], "a%3Ab:c"),
        (["a", "b:c"], "a:b%3Ac"),
        (["100%", "%3A"], "100%25:%253A"),
        (["a,b", 'c"d'], 'a,b:c"d'),
        (["", ""], ":"),
        (["a", "b", "c"], "a:b:c"),
    ],
)
def test_the_name_of_a_row_with_a_composite_key_has_all_values(key: list[Any], text: str) -> None:
    assert key_text(json.dumps(key)) == text


@given(st.lists(STRINGS, min_size=2, max_size=3), st.lists(STRINGS, min_size=2, max_size=3))
def test_other_composite_keys_have_other_names(one: list[str], other: list[str]) -> None:
    assert (key_text(json.dumps(one)) == key_text(json.dumps(other))) == (one == other)


@pytest.mark.parametrize(
    ("text", "value", "is_equal"),
    [
        ("9.90", Decimal("9.9"), True),
        ("9.9", Decimal("9.90"), True),
        ("1", 1, True),
        ("1.0", 1, True),
        ("1e2", 100, True),
        ("-0", 0, True),
        ("1", Decimal("1.0"), True),
        ("12345678901234567890.12", Decimal("12345678901234567890.12"), True),
        ("12345678901234567890.13", Decimal("12345678901234567890.12"), False),
        ("9007199254740993", 9007199254740993, True),
        ("9007199254740993", 9007199254740992, False),
        ("9" * 400, 10**400 - 1, True),
        ("9" * 400, 10**400, False),
        ("1e400", Decimal("1e400"), True),
        ("1e400", 10**400, True),
        ("1e400", Decimal("2e400"), False),
        ("1e99999999999999999999", 1, False),
        ("1e-99999999999999999999", 0, False),
        ("true", 1, False),
        ("false", 0, False),
        ("1", True, False),
        ("0", False, False),
        ("true", True, True),
        ("false", False, True),
        ("true", False, False),
        ("null", None, True),
        ("0", None, False),
        ('"null"', None, False),
        ('"1"', 1, False),
        ("1", "1", False),
        ("true", "true", False),
        ("null", "null", False),
        ('"1"', "1", True),
        ('"a\\"\\u00e9"', 'a"é', True),
        ('"a"', "a ", False),
        ("[1]", 1, False),
        ("{}", "{}", False),
        ('["a"]', "a", False),
    ],
)
def test_a_text_equals_a_value_that_it_stands_for(
    text: str, value: str | int | Decimal | bool | None, is_equal: bool
) -> None:
    assert (scalar_in(text) == scalar(value)) is is_equal
    assert not is_equal or hash(scalar_in(text)) == hash(scalar(value))


def test_a_text_is_put_into_a_message_as_it_is() -> None:
    assert dumps({"a": orjson.Fragment("1e400"), "b": [True]}) == '{"a":1e400,"b":[true]}'
