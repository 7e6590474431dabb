"""
What clients that resume get in addition: a cursor with every message.

Source: docs/protocol.md, "Resuming without a gap".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, Field, create_model

from brain.message.base_format import Reset, Text
from brain.message.commands import Command, Reply
from brain.message.cursor import Cursor
from brain.message.event import Event
from brain.message.snapshot import Part
from brain.message.wire_format import Welcome, WireFormat
from brain.message.wire_model import Timestamp, WireModel
from brain.message.wrapped_format import WrappedFormat


class Heartbeat(WireModel):
    """Nothing was sent for a while; the cursor is newer than the last one."""

    type: Literal["heartbeat"] = "heartbeat"
    data: dict[str, Any] = Field(default_factory=dict)
    timestamp: Timestamp


class WithCursor(WireModel):
    """What every message has in addition."""

    cursor: str | None = Field(default=None, json_schema_extra={"type": ["string", "null"]})
    """The place in the log after everything that the client was sent, for clients with cursors;
    null in a snapshot that goes on."""


@cache
def with_cursor_key(model: type[BaseModel]) -> type[BaseModel]:
    """Return the model of a message that may have a cursor."""
    return create_model(
        model.__name__,
        __base__=(WithCursor, model),
        __module__=model.__module__,
        __doc__=model.__doc__,
    )


class CursorFormat(WrappedFormat):
    """Speaks like another format, with the cursor as one more key of every message."""

    def __init__(self, plain: WireFormat) -> None:
        super().__init__(plain, "with cursor")
        own = () if plain.heartbeat_seconds else (Heartbeat,)
        models = dict.fromkeys([*plain.sent_models, Reset, *own])
        self.sent_models = [with_cursor_key(model) for model in models]

    def greet(self, welcome: Welcome) -> Iterator[str]:
        for text in self._plain.greet(welcome):
            yield with_cursor(text, welcome.cursor)

    def render(self, event: Event) -> str | None:
        text = self._plain.render(event)
        return None if text is None else with_cursor(text, event.cursor)

    def render_leaving(self, event: Event) -> str | None:
        text = self._plain.render_leaving(event)
        return None if text is None else with_cursor(text, event.cursor)

    def render_part(self, part: Part, now: datetime) -> str | None:
        text = self._plain.render_part(part, now)
        return None if text is None else with_cursor(text, part.cursor)

    def receive(self, text: str, now: datetime, cursor: Callable[[], Cursor]) -> Sequence[Command]:
        return [
            Reply(with_cursor(command.text, cursor())) if isinstance(command, Reply) else command
            for command in self._plain.receive(text, now, cursor)
        ]

    def add_cursor(self, text: str, cursor: Callable[[], Cursor]) -> str:
        return with_cursor(text, cursor())

    def heartbeat(self, now: datetime, cursor: Cursor) -> str | None:
        text = self._plain.heartbeat(now, cursor) or Heartbeat(timestamp=now).model_dump_json()
        return with_cursor(text, cursor)

    def reset(self, reason: str, now: datetime, cursor: Cursor) -> str | None:
        message = Reset(data=Text(message=reason), timestamp=now)
        return with_cursor(message.model_dump_json(), cursor)


def with_cursor(text: str, cursor: Cursor | None) -> str:
    quoted = "null" if cursor is None else f'"{cursor}"'
    return f'{text[:-1]},"cursor":{quoted}}}'
