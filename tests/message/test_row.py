from __future__ import annotations

from datetime import UTC, datetime

import pytest

from brain.errors import RowNotShown
from brain.message.event import Event, Operation
from brain.message.json_text import dumps
from brain.message.row import Row
from tests.message.rows import AT, HERE, deleted, inserted, published, reset, truncated, updated

ROW = Row(
    '{"id" : 17, "name" : "a\\"b\\u0041", "empty" : "", "gone" : null, "yes" : true,'
    ' "price" : 12345678901234567890.10, "huge" : 1e400, "step" : "7", "half" : "\\ud800",'
    ' "nan" : "NaN", "list" : [1, 2], "payload" : {"a" : {"b" : 1.10}},'
    ' "at" : "2026-02-06T01:30:00+00:00", "local" : "2026-02-06T01:30:00", "end" : "infinity"}'
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("id", "17"),
        ("price", "12345678901234567890.10"),
        ("huge", "1e400"),
        ("name", '"a\\"b\\u0041"'),
        ("gone", "null"),
        ("missing", "null"),
        ("list", "[1, 2]"),
        ("payload", '{"a" : {"b" : 1.10}}'),
    ],
)
def test_the_text_of_a_column_is_as_it_is_written(name: str, text: str) -> None:
    assert ROW.text(name) == text
    exact = ROW.exact(name)
    assert (None if exact is None else dumps(exact)) == (None if text == "null" else text)


@pytest.mark.parametrize(
    ("name", "string"),
    [
        ("name", 'a"bA'),
        ("empty", ""),
        ("id", "17"),
        ("price", "12345678901234567890.10"),
        ("gone", None),
        ("missing", None),
    ],
)
def test_a_string_is_a_text_or_the_digits_of_a_number(name: str, string: str | None) -> None:
    assert ROW.string(name) == string


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("id", "17"),
        ("price", "12345678901234567890.10"),
        ("huge", "1e400"),
        ("step", "7"),
        ("gone", None),
        ("missing", None),
    ],
)
def test_a_number_keeps_its_digits_and_may_be_a_text(name: str, number: str | None) -> None:
    found = ROW.number(name)

    assert (None if found is None else dumps(found)) == number


@pytest.mark.parametrize(
    "text", ["-1", "0", "-0.50", "1e5", "1E-7", "9" * 40, '"-1.5"', '"1e400"', '"0"']
)
def test_every_number_of_json_is_a_number(text: str) -> None:
    assert dumps(Row(f'{{"n" : {text}}}').number("n")) == text.strip('"')


@pytest.mark.parametrize(
    "text",
    [
        *(
            '""',
            '" 7"',
            '"7 "',
            '"+7"',
            '"07"',
            '"7."',
            '".7"',
            '"1_000"',
            '"0x1"',
            '"٣"',
            '"7\\n"',
        ),
        *('"NaN"', '"Infinity"', '"true"', "true", "[7]", "{}", '"\\u0037"'),
    ],
)
def test_any_other_value_is_no_number(text: str) -> None:
    assert Row(f'{{"n" : {text}}}').number("n") is None


@pytest.mark.parametrize("name", ["yes", "list", "payload"])
def test_any_other_value_is_no_string_and_no_moment(name: str) -> None:
    assert (ROW.string(name), ROW.moment(name)) == (None, None)


def test_a_text_that_cannot_be_sent_is_no_string() -> None:
    assert ROW.string("half") is None
    assert Row('{"a" : "\\ud83d\\ude00\\u0000"}').string("a") == "\U0001f600\0"


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        ("at", datetime(2026, 2, 6, 1, 30, tzinfo=UTC)),
        ("local", datetime(2026, 2, 6, 1, 30, tzinfo=UTC)),
        ("end", None),
        ("name", None),
        ("gone", None),
        ("missing", None),
    ],
)
def test_a_moment_is_a_timestamp_that_clients_can_read(name: str, moment: datetime | None) -> None:
    assert ROW.moment(name) == moment


def test_an_object_in_a_column_is_a_row_of_its_own() -> None:
    payload = ROW.nested("payload")
    inner = None if payload is None else payload.nested("a")

    assert inner is not None and inner.text("b") == "1.10"
    for name in ("list", "name", "id", "gone", "missing"):
        assert ROW.nested(name) is None


def test_a_row_has_the_columns_that_are_listed_also_those_that_are_null() -> None:
    row = Row('{"b" : null, "a" : 1}')

    assert ("a" in row, "b" in row, "c" in row) == (True, True, False)
    assert list(row.names()) == ["b", "a"]


@pytest.mark.parametrize("text", ["[1]", '"text"', "null", "1e400", "true"])
def test_what_is_no_object_has_no_columns(text: str) -> None:
    row = Row(text)

    for read in (row.text, row.exact, row.string, row.number, row.moment, row.nested):
        with pytest.raises(RowNotShown, match=r"expected JSON that begins with \{"):
            read("a")
    with pytest.raises(RowNotShown):
        row.names()
    with pytest.raises(RowNotShown):
        "a" in row  # noqa: B015


def test_a_column_nested_too_deep_for_a_parser_is_a_column_like_others() -> None:
    deep = "[" * 5000 + "]" * 5000
    row = Row(f'{{"deep" : {deep}, "n" : 1}}')

    assert (row.text("deep"), row.text("n")) == (deep, "1")


def test_an_event_has_a_row_and_an_updated_one_the_row_before() -> None:
    rows = [
        (event.row and event.row.text("n"), event.former and event.former.text("n"))
        for event in (
            inserted("a", {"n": 1}),
            updated("a", {"n": 2}, n=1),
            deleted("a", {"n": 2}),
            published("a", "note", {"n": 3}),
            truncated("a"),
            reset("a"),
        )
    ]

    assert rows == [("1", None), ("2", "1"), ("2", "2"), ("3", None), (None, None), (None, None)]


def change(data: str, old: str, *omitted: str) -> Event:
    return Event(*HERE, AT, "a", Operation.UPDATE, "[1]", data, old, 100, omitted=omitted)


@pytest.mark.parametrize(
    ("event", "columns"),
    [
        (change('{"a" : 1, "b" : 2}', '{"a" : 1, "b" : 3}'), ["b"]),
        (change('{"a" : 1, "b" : null}', '{"a" : 2, "b" : "null"}'), ["a", "b"]),
        (change('{"a" : 9.9}', '{"a" : 9.90}'), ["a"]),
        (change('{"a" : 12345678901234567890.1}', '{"a" : 12345678901234567890.2}'), ["a"]),
        (change('{"a" : 1}', '{"a" : 1}', "scan"), ["scan"]),
        (change('{"a" : 1}', '{"a" : 1}'), []),
        (inserted("a", {"a": 1}), []),
        (truncated("a"), []),
        (reset("a"), []),
    ],
)
def test_the_changed_columns_are_those_with_another_text_and_omitted_ones(
    event: Event, columns: list[str]
) -> None:
    assert event.changed_columns() == columns
    assert [name for name in ("a", "b", "scan") if event.has_changed(name)] == columns
