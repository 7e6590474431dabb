from __future__ import annotations

import json
import re
import sys
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from brain.message.base_format import BaseFormat
from brain.message.cursor_format import CursorFormat
from brain.message.json_text import STRING
from brain.message.number_strings import NumberStringsFormat, with_number_strings
from brain.message.snapshot import Part
from tests.message.rows import AT, inserted


@pytest.mark.parametrize(
    "number",
    [
        *("0", "-1", "9007199254740992", "-9007199254740992", "1.10", "0.1", "-0.0", "1e299"),
        *("123456789012345", "1234567890.12345", "100000000000000000000e-20", "0.000000000000000"),
    ],
)
def test_a_number_that_a_double_holds_stays_a_number(number: str) -> None:
    assert with_number_strings(f'{{"n" : {number}}}') == f'{{"n" : {number}}}'


@pytest.mark.parametrize(
    "number",
    [
        *("9007199254740993", "-9007199254740993", "12345678901234567890.12", "1e400", "-1e-400"),
        *(
            "0.1234567890123456",
            "1234567890123456.7",
            "1" + "0" * 400,
            "1" * 5000,
            f"{'1' * 5000}.5",
        ),
    ],
)
def test_a_number_that_a_double_does_not_hold_becomes_a_string(number: str) -> None:
    assert with_number_strings(f'{{"n" : {number}}}') == f'{{"n" : "{number}"}}'


def test_what_stands_in_a_string_stays_as_it_is() -> None:
    text = (
        r'{"a 12345678901234567890": "\"12345678901234567890", "b": [{"c": 12345678901234567890}]}'
    )

    assert with_number_strings(text) == text.replace("}]}", "").replace(
        '"c": 12345678901234567890', '"c": "12345678901234567890"}]}'
    )


digits = some.text("0123456789", min_size=1, max_size=25)
numbers = some.builds(
    "{}{}{}{}".format,
    some.sampled_from(["", "-"]),
    some.integers(0, 10**25).map(str) | some.sampled_from(["0", "9007199254740992", "1" * 5000]),
    some.just("") | digits.map(".{}".format),
    some.just("")
    | some.builds(
        "{}{}{}".format,
        some.sampled_from("eE"),
        some.sampled_from(["", "+", "-"]),
        some.integers(0, 400).map(str) | digits,
    ),
)
strings = some.text().map(json.dumps) | some.sampled_from(
    [r'"1\\"', r'"\"12345678901234567890"', '"1e400"', '"\n1e400"']
)
json_texts = some.recursive(
    numbers | strings | some.sampled_from(["true", "false", "null"]),
    lambda inner: (
        some.lists(inner).map(lambda parts: f"[{' , '.join(parts)}]")
        | some.lists(some.tuples(strings, inner)).map(
            lambda members: "{" + ",".join(f"{name}: {value}" for name, value in members) + "}"
        )
    ),
)


def slowly_with_number_strings(text: str) -> str:
    """Do what `with_number_strings` does, number by number."""

    def quoted(found: re.Match[str]) -> str:
        number = found[0]
        if number.startswith('"') or is_exact(number.lower()):
            return number
        return f'"{number}"'

    return re.sub(rf"{STRING}|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", quoted, text)


def is_exact(number: str) -> bool:
    mantissa, _, _ = number.partition("e")
    if number.lstrip("-").isdigit():
        return len(number) <= 17 and abs(int(number)) <= 2**53
    significant = mantissa.lstrip("-").replace(".", "").strip("0")
    is_in_range = 1e-300 < abs(float(number)) < 1e300
    return len(significant) <= 15 and (is_in_range or not significant)


@given(json_texts)
def test_every_number_is_judged_by_its_digits(text: str) -> None:
    assert with_number_strings(text) == slowly_with_number_strings(text)


@pytest.mark.parametrize(
    "piece", ["1", "-12.5", '"a"', '"1e400"', r'"\\"', "1e5", "1.5E-99", "{}", "true", '{"a": 1}']
)
def test_a_text_without_a_long_number_is_passed_over_without_a_call_per_number(piece: str) -> None:
    text = f"[{','.join([piece] * 50_000)}]"
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        strung = with_number_strings(text)
    finally:
        sys.setprofile(None)

    assert strung == text
    assert calls < 10


Json = some.recursive(
    some.none()
    | some.booleans()
    | some.text()
    | some.integers()
    | some.decimals(allow_nan=False, allow_infinity=False),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
)


@given(Json)
def test_all_but_long_numbers_is_the_same(value: Any) -> None:
    text = json.dumps(value, default=float)
    strung = with_number_strings(text)

    assert json.loads(strung, parse_float=Decimal) == as_strings(
        json.loads(text, parse_float=Decimal), text
    )


def as_strings(value: Any, text: str) -> Any:
    match value:
        case bool() | None | str():
            return value
        case int():
            return value if abs(value) <= 2**53 else str(value)
        case Decimal():
            digits = "".join(map(str, value.as_tuple().digits)).strip("0")
            return (
                value if (len(digits) <= 15 and 1e-300 < abs(value) < 1e300) or not value else ANY
            )
        case list():
            return [as_strings(each, text) for each in value]
        case _:
            return {name: as_strings(each, text) for name, each in value.items()}


class Anything:
    def __eq__(self, other: object) -> bool:
        return isinstance(other, str)

    def __hash__(self) -> int:
        return 0


ANY = Anything()


def test_messages_and_snapshots_have_strings_and_the_cursor_is_added_to_them() -> None:
    wire_format = CursorFormat(NumberStringsFormat(BaseFormat()))
    event = inserted("orders", {"id": 9007199254740993, "n": 1})

    message = json.loads(wire_format.render(event) or "")
    assert message["data"] == {"id": "9007199254740993", "n": 1}
    assert message["cursor"] == str(event.cursor)
    left = json.loads(wire_format.render_leaving(event) or "")
    assert left["data"]["key"] == ["9007199254740993"]

    part = Part("orders", 0, ['{"id": 9007199254740993}'], event.cursor)
    rows = json.loads(wire_format.render_part(part, AT) or "")["data"]["rows"]
    assert rows == [{"id": "9007199254740993"}]
