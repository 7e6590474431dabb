from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from brain.message.frames import framed, texts_of


@given(st.lists(st.text()))
def test_what_was_framed_can_be_read_again(texts: list[str]) -> None:
    assert list(texts_of(b"".join(map(framed, texts)))) == texts


@pytest.mark.parametrize("length", [0, 125, 126, 127, 65535, 65536, 200_000])
def test_a_text_of_any_length_is_one_frame(length: int) -> None:
    text = "x" * length
    assert framed(text) == Frame(Opcode.TEXT, text.encode()).serialize(mask=False)
    assert list(texts_of(framed(text))) == [text]
