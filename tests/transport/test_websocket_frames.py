from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from brain.transport.websocket_frames import WEBSOCKET_FRAMING, close_reason, texts_of

frame = WEBSOCKET_FRAMING.frame


@given(st.lists(st.text()))
def test_texts_in_frames_are_read_back(texts: list[str]) -> None:
    assert list(texts_of(b"".join(map(frame, texts)))) == texts


@pytest.mark.parametrize("length", [0, 125, 126, 127, 65535, 65536, 200_000])
def test_a_text_of_any_length_is_one_frame(length: int) -> None:
    text = "x" * length
    assert frame(text) == Frame(Opcode.TEXT, text.encode()).serialize(mask=False)
    assert list(texts_of(frame(text))) == [text]


@pytest.mark.parametrize("character", ["x", "\u00e9", "\U0001f600"])
def test_a_reason_of_any_length_fits_into_a_close_frame(character: str) -> None:
    for length in (0, 30, 123, 124, 1000):
        reason = close_reason(character * length)
        assert (character * length).startswith(reason)
        assert min(length * len(character.encode()), 120) <= len(reason.encode()) <= 123
        Frame(Opcode.CLOSE, b"\x0f\xa0" + reason.encode()).check()
