"""Frames of event streams, without I/O."""

from __future__ import annotations

import json
import re

import pytest

from brain.close_codes import CloseCode
from brain.message.cursor import Cursor
from brain.transport.event_stream_frames import EVENT_STREAM, EVENT_STREAM_CHUNKS

CURSOR = Cursor(17, 45, 90)


def retry(stream: bytes) -> int | None:
    match = re.search(rb"retry: (\d+)\n\n", stream)
    return None if match is None else int(match[1])


def test_a_text_is_the_data_of_one_event_and_a_cursor_its_id() -> None:
    assert EVENT_STREAM.frame('{"a":1}') == b'data: {"a":1}\n\n'
    assert EVENT_STREAM.frame("é", CURSOR) == "id: 17.45.90\ndata: é\n\n".encode()


def test_an_event_is_a_chunk_of_http() -> None:
    text = "é" * 200
    size, data, end = EVENT_STREAM_CHUNKS.frame(text, CURSOR).split(b"\r\n")
    assert data == EVENT_STREAM.frame(text, CURSOR)
    assert (int(size, 16), end) == (len(data), b"")


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_json_that_has_several_lines_is_one_event(end: str) -> None:
    frame = EVENT_STREAM.frame(end.join(['{"a":', '"\u2028\x85"', "}"])).decode()
    assert frame == 'data: {"a":\ndata: "\u2028\x85"\ndata: }\n\n'


@pytest.mark.parametrize(
    ("code", "least", "most"),
    [
        (CloseCode.SERVICE_RESTART, 1_000, 10_000),
        (CloseCode.ACCESS_LOST, 60_000, 120_000),
        (CloseCode.SLOW_CONSUMER, None, None),
    ],
)
def test_the_end_says_why_and_when_to_come_back(
    code: CloseCode, least: int | None, most: int | None
) -> None:
    end = EVENT_STREAM.end(code, "because")
    (text,) = re.findall(rb"data: (.*)\n\n", end)
    assert json.loads(text) == {"type": "closed", "code": code, "reason": "because"}
    milliseconds = retry(end)
    if least is None or most is None:
        assert milliseconds is None
    else:
        assert milliseconds is not None and least <= milliseconds <= most
    assert EVENT_STREAM_CHUNKS.end(code, "because").endswith(b"\r\n0\r\n\r\n")


def test_clients_that_are_cut_at_the_same_time_come_back_at_different_times() -> None:
    starts = {retry(EVENT_STREAM.begin()) for _ in range(50)}
    assert len(starts) > 10
    assert all(each is not None and 2_000 <= each <= 4_000 for each in starts)
