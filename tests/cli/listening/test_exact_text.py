"""Values as text."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from brain.cli.listening.exact_text import cell_text, json_text, word_text
from brain.cli.listening.json_lines import json_line
from brain.cli.listening.readable_lines import readable_line
from brain.client import Change
from brain.client.exact_json import parse


@pytest.mark.parametrize(
    "text",
    [
        "1.50",
        "0.00",
        "-0.0",
        "12345678901234567890.123456789012345678901234567890",
        "123456789012345678901234567890",
        "0.0000001",
        "0." + "0" * 38 + "1",
        "1e+300",
        "1e-300",
        "9" * 6000,
        "9" * 6000 + ".5",
        "null",
        '{"a":[true,false,null,"ä漢",{}]}',
    ],
)
def test_json_that_was_parsed_is_printed_as_it_was_sent(text: str) -> None:
    assert json_text(parse(text, decimals=True)) == text


def test_characters_that_control_a_terminal_or_are_no_unicode_are_escaped_in_json() -> None:
    text = "\x00\x1b\x7f\x80\x9b\u2028\u202e\u2066\ud800"
    shown = json_text({text: text})
    assert shown.isascii()
    assert json.loads(shown) == {text: text}
    shown.encode()


@pytest.mark.parametrize(
    ("value", "cell", "word"),
    [
        ("open", "open", "open"),
        ("two words", "two words", '"two words"'),
        ("null", "null", '"null"'),
        ("", "", '""'),
        ("\x1b[2J", r"\x1b[2J", r'"\u001b[2J"'),
        ("a\nb", r"a\nb", r'"a\nb"'),
        ("漢字", "漢字", "漢字"),
        (None, "null", "null"),
        (True, "true", "true"),
        (Decimal("1.50"), "1.50", "1.50"),
        ({"a": [1]}, '{"a":[1]}', '{"a":[1]}'),
    ],
)
def test_a_person_sees_texts_as_they_are_unless_that_would_mislead(
    value: Any, cell: str, word: str
) -> None:
    assert (cell_text(value), word_text(value)) == (cell, word)


def test_a_line_of_json_has_the_keys_of_brain_v1_that_have_a_value() -> None:
    change: Change[Any] = Change(
        "update",
        "orders",
        key=[1],
        row={"id": 1, "note": None},
        old={"id": 1, "note": Decimal("1.0")},
        omitted=("scan",),
        at="2026-02-06T01:30:00.000Z",
        cursor="1.2.3",
        txid="851",
        last=True,
    )
    assert json_line(change) == (
        '{"op":"update","channel":"orders","key":[1],"row":{"id":1,"note":null},'
        '"old":{"id":1,"note":1.0},"omitted":["scan"],"at":"2026-02-06T01:30:00.000Z",'
        '"cursor":"1.2.3","txid":"851","last":true}'
    )
    message: Change[Any] = Change("message", "news", type="greeting", private=True)
    assert json_line(message) == (
        '{"op":"message","channel":"news","type":"greeting","data":null,"private":true}'
    )


def test_a_readable_line_is_one_line_however_long_and_odd_its_values_are() -> None:
    change: Change[Any] = Change(
        "delete", "or\nders", key=["a b", 1], old={"no\x1bte": "x" * 5000}, omitted=("\x9b",)
    )
    line = readable_line(change)
    assert line.isprintable()
    assert len(line) < 400
    assert r'delete   or\nders "a b" 1 (without \x9b) no\x1bte=xxx' in line
