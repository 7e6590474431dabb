"""What clients of brain.v1 send: commands, or refusals that can be sent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from brain.message.commands import OpenSubscription, Publish, Refuse
from brain.message.v1_format import V1
from tests.message.conditions import condition_from_json
from tests.message.models import command_in


def subscribe(**frame: Any) -> Any:
    return command_in(V1, {"type": "subscribe", "id": "a", "channel": "orders", **frame})


def test_a_row_is_named_by_the_digits_and_the_strings_of_its_key() -> None:
    for text, name in (
        ("[1]", "1"),
        (" [ 1 ] ", "1"),
        ("[1.50]", "1.50"),
        ('["a"]', "a"),
        ('["a:b",\n7]', "a%3Ab:7"),
        ('["\\u0061"]', "a"),
        ("[123456789012345678901234567890]", "123456789012345678901234567890"),
        ("[true, null]", "true:null"),
    ):
        frame = f'{{"type": "subscribe", "id": "a", "channel": "orders", "key": {text}}}'
        command = command_in(V1, frame)
        assert isinstance(command, OpenSubscription)
        assert command.key == name


def test_a_filter_is_parsed_with_all_digits() -> None:
    frame = (
        '{"type": "subscribe", "id": "a", "channel": "orders",'
        ' "where": {"total": {"gte": 12345678901234567890.10}, "status": {"in": ["b", "a"]}}}'
    )
    command = command_in(V1, frame)

    assert isinstance(command, OpenSubscription)
    assert command.where == condition_from_json(
        '{"and": [{"status": {"in": ["a", "b"]}}, {"total": {"gte": 12345678901234567890.1}}]}'
    )


def test_what_is_published_keeps_its_digits() -> None:
    frame = '{"type":"publish","id":"a","channel":"n","message_type":"t","data":[1.10, 1e999]}'

    command = command_in(V1, frame)
    assert isinstance(command, Publish)
    assert command.data == "[1.10, 1e999]"


@pytest.mark.parametrize(
    "frame",
    [
        {"key": "1"},
        {"key": [[1]]},
        {"key": [{}]},
        {"key": []},
        {"key": ["x" * 1001]},
        {"key": ["\ud800"]},
        {"channel": "\ud800"},
        {"channel": "x" * 256},
        {"channel": 1},
        {"id": "\ud800"},
        {"id": "x" * 101},
        {"id": None},
        {"where": []},
        {"where": {"\ud800": 1}},
        {"where": {"x": "\ud800"}},
        {"snapshot": "yes"},
        {"snapshot": 1},
        {"after": 1},
        {"numbers": "float"},
        {"\ud800": 1},
        {"x" * 5000: 1},
        {"type": "unsubscribe", "sub": True},
        {"type": "\ud800"},
        {"type": ["subscribe"]},
        {"type": None},
    ],
)
def test_a_frame_that_is_none_is_refused_by_a_message_that_can_be_sent(frame: Any) -> None:
    refusal = subscribe(**frame)

    assert isinstance(refusal, Refuse)
    text = V1.error(refusal)
    assert text.encode()
    assert len(text) < 1000
    assert json.loads(text)["code"] in ("malformed", "invalid_filter")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "NaN",
        "[" * 100_000,
        '{"type": "subscribe", "id": "a", "channel": "orders", "key": [NaN]}',
        '{"type": "subscribe", "id": "a", "channel": "orders", "key": [-Infinity]}',
        '{"type": "subscribe", "id": "a", "channel": "orders", "where": {"x": NaN}}',
        '{"type": "unsubscribe", "id": "a", "sub": ' + "9" * 5000 + "}",
        '{"type": "unsubscribe", "id": "a", "sub": 1e99999999999999999999}',
        '{"type": "unsubscribe", "id": "a", "sub": 1.5}',
        '{"type": "until", "id": "a", "txid": 5}',
    ],
)
def test_a_text_that_is_no_frame_is_refused_by_a_message_that_can_be_sent(text: str) -> None:
    refusal = command_in(V1, text)

    assert isinstance(refusal, Refuse)
    assert len(V1.error(refusal)) < 1000
