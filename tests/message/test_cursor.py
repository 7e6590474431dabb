from brain.message.cursor import Cursor


def test_a_cursor_is_written_as_tick_nonce_and_event() -> None:
    assert str(Cursor(7, 123, 45)) == "7.123.45"


def test_a_cursor_without_an_event_ends_its_tick() -> None:
    assert Cursor(7, 123).ends_tick
    assert not Cursor(7, 123, 45).ends_tick
