"""
What is added for clients that come back: every message carries a cursor.

Source: docs/protocol.md, "Coming back without a gap".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from brain.message.acts import Act, Say
from brain.message.changes import Left, Message
from brain.message.cursor import Cursor
from brain.message.event import Event
from brain.message.runs import (
    CHANNEL,
    Connected,
    Echo,
    Run,
    RunTruncated,
    Text,
    told_rows,
)
from brain.message.snapshot import Snapshot
from brain.message.wire_format import Welcome, WireFormat
from brain.message.wire_model import Timestamp, WireModel

# Of `tasks`, some 100 KB: many clients refuse a message of more than a megabyte.
PART_ROWS = 500


class Heartbeat(WireModel):
    """There was nothing to tell for a while; the cursor is newer than the last one."""

    type: Literal["heartbeat"] = "heartbeat"
    data: dict[str, Any] = Field(default_factory=dict)
    timestamp: Timestamp


class Reset(WireModel):
    """What the client missed cannot be told to it; `data.message` says why."""

    type: Literal["reset"] = "reset"
    data: Text
    timestamp: Timestamp


class Rows(WireModel):
    """Rows of one watched table."""

    channel: str
    rows: list[dict[str, Any]]
    more: bool
    """Whether this is not all of the snapshot yet; only its last message has a cursor."""


class SnapshotPart(WireModel):
    """What the tables hold where the messages after it go on."""

    type: Literal["snapshot"] = "snapshot"
    data: Rows
    timestamp: Timestamp


OwnMessage = Annotated[
    Connected | Run | RunTruncated | Left | Echo | Heartbeat | Reset | SnapshotPart,
    Field(discriminator="type"),
]
ServerMessage = Annotated[OwnMessage | Message, Field(union_mode="left_to_right")]
"""Everything that `/ws` sends; the last three only to clients that asked for cursors."""

SERVER_MESSAGE: TypeAdapter[ServerMessage] = TypeAdapter(ServerMessage)


class WithCursorFormat:
    """Speaks like another format, with the cursor as one more key of every message."""

    def __init__(self, plain: WireFormat) -> None:
        self._plain = plain
        self.name = f"{plain.name} with cursor"
        self.pulse_seconds = plain.pulse_seconds
        self.silence_seconds = plain.silence_seconds
        self.going_away_code = plain.going_away_code

    def greet(self, welcome: Welcome) -> Iterator[str]:
        for text in self._plain.greet(welcome):
            yield with_cursor(text, welcome.cursor)

    def render(self, event: Event) -> str | None:
        text = self._plain.render(event)
        return None if text is None else with_cursor(text, event.cursor)

    def render_leaving(self, event: Event) -> str | None:
        text = self._plain.render_leaving(event)
        return None if text is None else with_cursor(text, event.cursor)

    def hear(self, text: str, now: datetime, cursor: Cursor) -> Sequence[Act]:
        return [
            Say(with_cursor(act.text, cursor)) if isinstance(act, Say) else act
            for act in self._plain.hear(text, now, cursor)
        ]

    def confirm(self, act: Act, now: datetime) -> str | None:
        return self._plain.confirm(act, now)

    def reject(self, why: str, now: datetime) -> str | None:
        return self._plain.reject(why, now)

    def pulse(self, now: datetime, cursor: Cursor) -> str | None:
        text = self._plain.pulse(now, cursor) or Heartbeat(timestamp=now).model_dump_json()
        return with_cursor(text, cursor)

    def reset(self, reason: str, now: datetime, cursor: Cursor) -> str | None:
        message = Reset(data=Text(message=reason), timestamp=now)
        return with_cursor(message.model_dump_json(), cursor)

    def tell_snapshot(self, snapshot: Snapshot, now: datetime) -> Iterator[str]:
        """Yield the rows in messages of a bearable size, of which the last has the cursor."""
        parts = list(parts_of(snapshot)) or [(CHANNEL, [])]
        for number, (channel, rows) in enumerate(parts, start=1):
            is_last = number == len(parts)
            data = Rows(channel=channel, rows=told_rows(channel, rows), more=not is_last)
            text = SnapshotPart(data=data, timestamp=now).model_dump_json()
            yield with_cursor(text, snapshot.cursor if is_last else None)


def parts_of(snapshot: Snapshot) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield every table at least once, so many rows at a time."""
    for channel, rows in snapshot.tables.items():
        for start in range(0, max(len(rows), 1), PART_ROWS):
            yield channel, rows[start : start + PART_ROWS]


def with_cursor(text: str, cursor: Cursor | None) -> str:
    quoted = "null" if cursor is None else f'"{cursor}"'
    return f'{text[:-1]},"cursor":{quoted}}}'
