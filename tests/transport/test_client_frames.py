"""Brain's reading of frames, beside that of the library `websockets`."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame
from websockets.protocol import Protocol, Side

from brain.close_codes import CloseCode
from brain.transport.client_frames import ClientFrame, Opcode, WrongFrame, check_close, next_frame
from tests.raw_websocket import client_frame

MOST_BYTES = 300
MASKS = st.binary(min_size=4, max_size=4)
OPCODES = st.sampled_from([0, 1, 2, 3, 7, 8, 9, 10, 11, 15])


def payloads() -> st.SearchStrategy[bytes]:
    close = st.builds(
        lambda code, reason: code.to_bytes(2) + reason,
        st.one_of(st.integers(998, 1016), st.integers(2998, 5001)),
        st.one_of(st.just(b""), st.just(b"\xc3\xa9"), st.binary(max_size=3)),
    )
    long = st.sampled_from([125, 126, 127, MOST_BYTES, MOST_BYTES + 1]).map(bytes)
    return st.one_of(st.binary(max_size=5), close, long)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Draw a frame, whose first two bytes may say what is wrong."""
    payload, mask = draw(payloads()), draw(MASKS)
    frame = bytearray(client_frame(payload, draw(OPCODES), mask=mask, is_final=draw(st.booleans())))
    frame[0] |= draw(st.sampled_from([0, 0, 0, 0, 0x40, 0x20, 0x10]))
    if draw(st.integers(0, 9)) == 0:
        frame[1] &= 0x7F
    return bytes(frame)


def read(received: bytes, cuts: list[int]) -> tuple[list[ClientFrame], int | None]:
    """Read frames from what arrives in pieces; return them, and the code of what is wrong."""
    edges = [0, *sorted(cut % (len(received) + 1) for cut in cuts), len(received)]
    buffer, found = b"", list[ClientFrame]()
    try:
        for begin, end in pairwise(edges):
            buffer += received[begin:end]
            while (one := next_frame(buffer, 0, MOST_BYTES)) is not None:
                frame, size = one
                buffer = buffer[size:]
                if frame.opcode == 8:
                    check_close(frame.payload)
                found.append(frame)
                if frame.opcode == 8:
                    return found, None
    except WrongFrame as wrong:
        return found, wrong.code
    return found, None


class WithoutMessages(Protocol):
    """The library's protocol, without its order of fragments."""

    def recv_frame(self, frame: Frame) -> None:
        if frame.opcode in (0, 1, 2):
            self.events.append(frame)
        else:
            super().recv_frame(frame)


@settings(max_examples=300)
@given(st.lists(frames(), max_size=4), st.lists(st.integers(0), max_size=4))
def test_frames_in_any_pieces_are_read_as_the_library_reads_them(
    sent: list[bytes], cuts: list[int]
) -> None:
    received = b"".join(sent)
    library = WithoutMessages(Side.SERVER, max_size=MOST_BYTES)
    library.receive_data(received)
    expected = [
        (int(event.opcode), event.fin, bytes(event.data))
        for event in library.events_received()
        if isinstance(event, Frame)
    ]

    found, code = read(received, cuts)

    assert [(int(frame.opcode), frame.is_last, frame.payload) for frame in found] == expected
    if library.parser_exc is None or library.close_sent is None:
        assert code is None
    elif library.close_sent.code == CloseCode.MESSAGE_TOO_BIG:
        # Where a frame has several faults, Brain looks at its length last.
        assert code in (CloseCode.MESSAGE_TOO_BIG, CloseCode.PROTOCOL_ERROR)
    else:
        assert code == library.close_sent.code


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", None),
        (b"\x03", 1002),
        *((code.to_bytes(2), None) for code in (1000, 1003, 1007, 1014, 3000, 4999)),
        *((code.to_bytes(2), 1002) for code in (999, 1004, 1005, 1006, 1015, 2999, 5000)),
        ((1000).to_bytes(2) + b"\xff", 1007),
    ],
)
def test_a_close_frame_has_a_valid_code_and_reason_or_is_refused(
    payload: bytes, code: int | None
) -> None:
    assert read(client_frame(payload, 8), [])[1] == code


@pytest.mark.parametrize("size", [5, 125, 126, 65_535, 65_536])
def test_a_message_is_refused_by_its_head_if_it_is_too_long(size: int) -> None:
    frame = client_frame(bytes(size))

    assert next_frame(frame, 0, size) == (ClientFrame(Opcode.TEXT, True, bytes(size)), len(frame))
    assert next_frame(frame[:-1], 0, size) is None
    with pytest.raises(WrongFrame) as wrong:
        next_frame(frame[: len(frame) - size - 4], 0, size - 1)
    assert wrong.value.code is CloseCode.MESSAGE_TOO_BIG
