from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from datetime import datetime

import pytest

from brain.errors import RowNotShown
from brain.message.base_format import BaseFormat
from brain.message.commands import Command
from brain.message.cursor import Cursor
from brain.message.encodings import encoding_of
from brain.message.event import Event
from brain.message.matching import Match, Topic, parse_filter
from brain.message.rendering import MOST_FRAMES
from brain.message.snapshot import PART_CHARACTERS, PART_ROWS, Part, Snapshot, parts_of
from brain.message.subscription_set import subscription_set
from brain.message.wire_format import WireFormat
from brain.problems import Problems
from brain.transport.websocket_frames import WEBSOCKET_FRAMING
from tests.message.rows import AT, HERE, as_json, inserted, published, truncated, updated
from tests.subscription_sets import in_channels


class LineFraming:
    """Delimits texts as lines."""

    name = "lines"
    keep_alive = b""
    transport = "test"

    def frame(self, text: str, cursor: Cursor | None = None) -> bytes:
        return f"{text}\n".encode()


LINES = LineFraming()
TASK = inserted("tasks", {"id": "a"})
NOTHING = in_channels([])


class CountingFormat(WireFormat):
    """Renders an event as its key, and counts the renderings."""

    def __init__(self, name: str = "counting") -> None:
        self.name = name
        self.renderings = 0

    def render(self, event: Event) -> str | None:
        self.renderings += 1
        return None if event.data is None else f"{self.name} {event.key}"

    def render_leaving(self, event: Event) -> str | None:
        self.renderings += 1
        return f"{self.name} {event.key} leaves"

    def render_part(self, part: Part, now: datetime) -> str | None:
        self.renderings += 1
        return f"{self.name} {part.channel} {part.start}"

    def receive(self, text: str, now: datetime, cursor: Callable[[], Cursor]) -> Sequence[Command]:
        return ()


def fresh(event: Event) -> Event:
    """Return a copy of an event that has not been rendered."""
    return event.with_values()


def test_an_event_is_rendered_and_framed_once_per_encoding() -> None:
    counting, event = CountingFormat(), fresh(TASK)
    encoding = encoding_of(counting, LINES)

    frame = encoding.encode(event, Match.MATCHES)

    assert encoding.encode(event, Match.MATCHES) is frame
    assert list(encoding.encode_all([event], in_channels(["tasks"]), None)) == [frame]
    assert counting.renderings == 1


def test_every_framing_has_a_frame_of_its_own() -> None:
    counting, event = CountingFormat(), fresh(TASK)
    websocket, lines = encoding_of(counting, WEBSOCKET_FRAMING), encoding_of(counting, LINES)

    for _ in range(2):
        assert websocket.encode(event, Match.MATCHES) == b'\x81\x0ecounting ["a"]'
        assert lines.encode(event, Match.MATCHES) == b'counting ["a"]\n'


def test_an_event_keeps_one_copy_of_its_message() -> None:
    encoding, event = encoding_of(BaseFormat(), LINES), inserted("tasks", {"id": "a" * 100_000})
    event = fresh(event)

    tracemalloc.start()
    frame = encoding.encode(event, Match.MATCHES)
    assert frame is not None
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(frame) <= kept < 1.5 * len(frame)


def test_every_format_renders_an_event_for_itself() -> None:
    one, other, event = CountingFormat("one"), CountingFormat("other"), fresh(TASK)

    frames = [encoding_of(each, LINES).encode(event, Match.MATCHES) for each in (one, other)]

    assert frames == [b'one ["a"]\n', b'other ["a"]\n']
    assert (one.renderings, other.renderings) == (1, 1)


def test_an_event_is_rendered_once_even_if_there_is_no_message_for_it() -> None:
    counting, event = CountingFormat(), fresh(truncated("tasks"))

    for _ in range(2):
        assert encoding_of(counting, LINES).encode(event, Match.MATCHES) is None
    assert counting.renderings == 1


def test_that_a_row_leaves_is_another_message_than_its_change() -> None:
    encoding, event = encoding_of(CountingFormat(), LINES), fresh(TASK)

    for _ in range(2):
        assert encoding.encode(event, Match.LEAVES) == b'counting ["a"] leaves\n'
        assert encoding.encode(event, Match.MATCHES) == b'counting ["a"]\n'


def test_a_subscriber_gets_what_matches_and_private_messages_of_its_own() -> None:
    encoding = encoding_of(CountingFormat(), LINES)
    filtered = subscription_set(
        frozenset({Topic("tasks", where=parse_filter({"agent": "dev"})), Topic("news")})
    )
    events = [
        inserted("tasks", {"id": "a", "agent": "dev"}),
        inserted("tasks", {"id": "b", "agent": "ops"}),
        updated("tasks", {"id": "c", "agent": "ops"}, agent="dev"),
        inserted("orders", {"id": "d"}),
        published("news", "hello", {}).with_values(recipient="ann", key=as_json(["to ann"])),
        published("news", "hello", {}).with_values(recipient="bob", key=as_json(["to bob"])),
        truncated("news"),
    ]

    assert list(encoding.encode_all(events, filtered, "ann")) == [
        b'counting ["a"]\n',
        b'counting ["c"] leaves\n',
        b'counting ["to ann"]\n',
    ]
    assert len(list(encoding.encode_all(events, filtered, None))) == 2


def test_the_parts_of_a_snapshot_are_rendered_once_per_encoding() -> None:
    counting = CountingFormat()
    snapshot = Snapshot({"tasks": [], "orders": []}, HERE)

    for _ in range(2):
        frames = encoding_of(counting, LINES).encode_snapshot(snapshot, NOTHING, AT)
        assert list(frames) == [b"counting orders 0\n", b"counting tasks 0\n"]
    assert counting.renderings == 2
    assert (
        len(list(encoding_of(counting, WEBSOCKET_FRAMING).encode_snapshot(snapshot, NOTHING, AT)))
        == 2
    )
    assert counting.renderings == 4


def test_the_parts_of_a_snapshot_are_rendered_as_they_are_needed_and_only_the_latest_kept() -> None:
    counting = CountingFormat()
    snapshot = Snapshot({"orders": ["{}"] * (PART_ROWS * 10 + 1)}, HERE)
    one, other = [
        encoding_of(counting, LINES).encode_snapshot(snapshot, NOTHING, AT) for _ in range(2)
    ]

    assert next(one) == next(other) == b"counting orders 0\n"
    assert counting.renderings == 1
    assert [*one][-1] == b"counting orders %d\n" % (PART_ROWS * 10)
    assert counting.renderings == 11
    assert len(snapshot.frames) == MOST_FRAMES


def test_a_large_row_is_a_part_of_its_own() -> None:
    small, large = "{}", "1" * PART_CHARACTERS * 2
    parts = list(parts_of(Snapshot({"orders": [small, large, large, small]}, HERE)))

    assert [len(part.rows) for part in parts] == [1, 1, 1, 1]
    assert [part.start for part in parts] == [0, 1, 2, 3]
    assert [part.cursor for part in parts] == [None, None, None, HERE]


def test_a_channel_without_a_table_has_an_empty_part_of_its_name() -> None:
    snapshot = Snapshot({"orders": ["{}"]}, HERE, frozenset({"orders", "nope", "zebra"}))

    parts = [(part.channel, part.rows, part.cursor) for part in parts_of(snapshot)]
    assert parts == [("nope", [], None), ("orders", ["{}"], None), ("zebra", [], HERE)]


def test_clients_with_one_format_and_framing_share_an_encoding() -> None:
    counting = CountingFormat()

    assert encoding_of(counting, LINES) is encoding_of(counting, LINES)
    assert encoding_of(counting, LINES) is not encoding_of(counting, WEBSOCKET_FRAMING)
    assert encoding_of(counting, LINES).name != encoding_of(counting, WEBSOCKET_FRAMING).name
    assert encoding_of(CountingFormat(), LINES).name == encoding_of(counting, LINES).name


class FailingFormat(BaseFormat):
    name = "failing"

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def render(self, event: Event) -> str | None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "reason", "tracebacks"),
    [
        (RuntimeError("a mistake"), "RuntimeError: a mistake", 1),
        (RowNotShown("status is unknown"), "status is unknown", 0),
    ],
)
def test_an_event_that_cannot_be_rendered_is_sent_to_no_client_and_is_a_problem(
    caplog: pytest.LogCaptureFixture, error: Exception, reason: str, tracebacks: int
) -> None:
    problems = Problems()
    encoding, event = encoding_of(FailingFormat(error), LINES, problems), fresh(TASK)

    for one in (event, event, fresh(event)):
        assert encoding.encode(one, Match.MATCHES) is None
    assert list(encoding.encode_all([event], in_channels(["tasks"]), None)) == []
    encoding.encode(published("news", "hello", {}), Match.MATCHES)

    text = f"is not sent to clients of failing: {reason}"
    assert [(one.address, one.channel, one.count, one.text) for one in problems.recent()] == [
        ("message news", "news", 1, f"a message without a key {text}"),
        ("message tasks", "tasks", 2, f'["a"] {text}'),
    ]
    assert caplog.messages == [
        f'message tasks: ["a"] {text}',
        f"message news: a message without a key {text}",
    ]
    assert caplog.text.count("Traceback") == 2 * tracebacks
