from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from brain.errors import FilterRefused
from brain.message.condition import EVERYTHING, NOTHING
from brain.message.condition_parsing import (
    MOST_BYTES,
    MOST_CONDITIONS,
    MOST_DEPTH,
    MOST_DIGITS,
    MOST_VALUES,
    parse_condition,
)
from brain.message.matching import LONGEST_TEXT
from tests.message.conditions import condition_from_json

SAME = [
    ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}'),
    ('{"a": 1}', '{"a": {"eq": 1}}'),
    ('{"a": 1}', '{"a": {"in": [1]}}'),
    ('{"a": 1}', '{"a": {"in": [1, 1.0, 1e0]}}'),
    ('{"a": {"in": [1, 2]}}', '{"a": {"in": [2, 1, 2]}}'),
    ('{"a": {"in": [1, 2]}}', '{"or": [{"a": 2}, {"a": 1}]}'),
    ('{"a": 2}', '{"a": {"in": [1, 2]}, "and": [{"a": {"in": [2, 3]}}]}'),
    ('{"a": {"gt": 1, "lt": 2}}', '{"and": [{"a": {"lt": 2}}, {"a": {"gt": 1}}]}'),
    ('{"a": {"gt": 1}}', '{"and": [{"and": [{"a": {"gt": 1}}, {"a": {"gt": 1.0}}]}]}'),
    ('{"or": [{"a": 1}, {"b": 1}]}', '{"or": [{"or": [{"b": 1}]}, {"a": 1}, {"a": 1}]}'),
    ('{"a": 1}', '{"and": [{"a": 1}, {}], "or": [{"a": 1}]}'),
    ("{}", '{"and": []}'),
    ("{}", '{"or": [{}, {"a": 1}]}'),
    ('{"or": []}', '{"a": {"in": []}}'),
    ('{"or": []}', '{"a": 1, "and": [{"a": 2}]}'),
    ('{"or": []}', '{"b": 1, "or": []}'),
    ('{"a": -0}', '{"a": 0.0}'),
    ('{"a": "\\u00e9"}', '{"a": "é"}'),
]
OTHERS = [
    ('{"a": 1}', '{"a": "1"}'),
    ('{"a": 1}', '{"a": true}'),
    ('{"a": 0}', '{"a": false}'),
    ('{"a": 1}', '{"b": 1}'),
    ('{"a": {"gt": 1}}', '{"a": {"gte": 1}}'),
    ('{"a": 1, "b": 1}', '{"or": [{"a": 1}, {"b": 1}]}'),
    ('{"a": "é"}', '{"a": "e\\u0301"}'),
    ('{"a": 9007199254740993}', '{"a": 9007199254740992}'),
    ('{"a": 0.1}', '{"a": 0.1000000000000000055511151231257827}'),
    ("{}", '{"or": []}'),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_filters_that_say_the_same_are_equal(one: str, other: str) -> None:
    first, second = condition_from_json(one), condition_from_json(other)

    assert first == second
    assert hash(first) == hash(second)
    assert first.json == second.json
    assert condition_from_json(first.json) == first


@pytest.mark.parametrize(("one", "other"), OTHERS)
def test_filters_that_say_something_else_differ(one: str, other: str) -> None:
    assert condition_from_json(one) != condition_from_json(other)
    assert condition_from_json(one).json != condition_from_json(other).json


def test_a_filter_of_everything_and_one_of_nothing_are_told_apart() -> None:
    assert parse_condition({}) == EVERYTHING
    assert parse_condition({"a": {"in": []}}) == NOTHING


def test_columns_may_be_named_like_words_of_the_language() -> None:
    condition = condition_from_json('{"and": 1, "or": {"in": [2, 3]}, "eq": {"is": null}}')

    assert condition_from_json(condition.json) == condition
    assert condition.size == 4


def test_numbers_keep_all_their_digits() -> None:
    digits = "12345678901234567890.123456789012345678901234567891"
    assert condition_from_json(f'{{"a": {digits}}}').json == f'{{"a":{{"eq":{digits}}}}}'
    assert parse_condition({"a": 0.1}) == parse_condition({"a": Decimal("0.10")})
    assert condition_from_json('{"a": 1.50e3}').json == '{"a":{"eq":1500}}'


REFUSED: list[tuple[Any, str]] = [
    (None, "where must be a JSON object"),
    ([], "where must be a JSON object"),
    ({"and": [1]}, "where must be a JSON object"),
    ({"a": None}, r'where: a: nothing equals null; write \{"is": null\}'),
    ({"a": {"neq": None}}, "nothing equals null"),
    ({"a": {"in": [1, None]}}, "nothing equals null"),
    ({"a": {"is": True}}, r'a: only \{"is": null\} exists'),
    ({"a": {}}, "a has no comparison; there are eq, neq, gt, gte, lt, lte, in, is"),
    ({"a": {"like": "x"}}, "a: there is no comparison like; there are eq"),
    ({"a": {"in": 1}}, "a: in needs a list of values"),
    ({"a": [1]}, "the value of a must be a string, a number or a boolean"),
    ({"a": {"gt": {"b": 1}}}, "the value of a must be a string, a number or a boolean"),
    ({"a": float("nan")}, "the value of a must be a string, a number or a boolean"),
    ({"a": "\ud800"}, "the value of a has half of a surrogate pair"),
    ({"\ud800": 1}, "the name of a column has half of a surrogate pair"),
    ({"a": {"\ud800": 1}}, "there is no comparison"),
    ({"a": "x\0"}, r"the value of a has the character U\+0000"),
    ({"a": "x" * (LONGEST_TEXT + 1)}, f"more than {LONGEST_TEXT} characters"),
    ({"a" * (LONGEST_TEXT + 1): 1}, f"more than {LONGEST_TEXT} characters"),
    ({"a": Decimal("1e1000")}, f"a number may have {MOST_DIGITS} digits"),
    ({"a": Decimal("1e-1000")}, f"a number may have {MOST_DIGITS} digits"),
    ({"a": Decimal("1." + "1" * MOST_DIGITS)}, f"a number may have {MOST_DIGITS} digits"),
    (
        {"or": [{"a": n} for n in range(MOST_CONDITIONS)]},
        f"a filter may have {MOST_CONDITIONS} conditions",
    ),
    (
        {"a": {"in": [1] * MOST_VALUES}, "b": {"in": [1]}},
        f"the lists of in may have {MOST_VALUES} values together",
    ),
    (
        {"a": {"in": [str(n).rjust(LONGEST_TEXT) for n in range(MOST_BYTES // LONGEST_TEXT + 1)]}},
        f"a filter may have {MOST_BYTES} bytes",
    ),
]


@pytest.mark.parametrize(("where", "reason"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_malformed_filter_is_refused_with_a_sentence(where: Any, reason: str) -> None:
    with pytest.raises(FilterRefused, match=reason) as refused:
        parse_condition(where)
    assert str(refused.value).encode()


def nested(depth: int) -> str:
    return '{"or":[{"b":1},' * depth + '{"a":1}' + "]}" * depth


def test_a_filter_may_be_nested_so_deep_and_no_deeper() -> None:
    assert condition_from_json(nested(MOST_DEPTH)).size == 2
    for depth in (MOST_DEPTH + 1, 100):
        with pytest.raises(FilterRefused, match=f"may be nested {MOST_DEPTH} deep"):
            condition_from_json(nested(depth))


def test_limits_are_those_of_what_is_accepted() -> None:
    assert parse_condition({"a": {"in": list(range(MOST_VALUES))}}).size == MOST_VALUES
    many = {"or": [{"a": {"gt": n}} for n in range(MOST_CONDITIONS - 1)]}
    assert parse_condition(many).size == MOST_CONDITIONS - 1
    assert parse_condition({"a": Decimal("1e999")}).json == f'{{"a":{{"eq":1{"0" * 999}}}}}'


def test_the_json_of_a_condition_is_that_of_any_parser() -> None:
    assert json.loads(condition_from_json('{"a": "\\u2028"}').json) == {"a": {"eq": "\u2028"}}
