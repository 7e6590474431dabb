from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brain.errors import CursorLost
from brain.message.cursor import END_OF_TICK, Cursor

NUMBERS = st.integers(0, END_OF_TICK)


def test_a_cursor_is_written_as_tick_nonce_and_event() -> None:
    assert str(Cursor(7, 123, 45)) == "7.123.45"


@given(st.builds(Cursor, NUMBERS, NUMBERS, NUMBERS))
def test_a_cursor_is_parsed_as_it_was_written(cursor: Cursor) -> None:
    assert Cursor.parse(str(cursor)) == cursor


def test_a_cursor_without_an_event_ends_its_tick() -> None:
    assert Cursor(7, 123).ends_tick
    assert not Cursor(7, 123, 45).ends_tick


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "1", "1.2", "1.2.3.4", "1.2.", "-1.2.3", "1.2.3 ", " 1.2.3", "1.2.3\n", "1..3"),
        *(
            "1.2.9223372036854775808",
            "99999999999999999999.2.3",
            "\u0661.2.3",
            "0x1.2.3",
            "1.2.3e4",
        ),
    ],
)
def test_any_other_text_is_no_cursor(text: str) -> None:
    with pytest.raises(CursorLost, match="the cursor is malformed"):
        Cursor.parse(text)


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        Cursor.parse(text)
    except CursorLost:
        pass
