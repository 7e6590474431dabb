"""
The wire format of `/ws`: `{type, data, timestamp}`, rows of any channel, and an echo.

Source: docs/protocol.md. The envelope and the echo are those of Cecelia Brain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Literal

import orjson
from pydantic import BaseModel, RootModel

from brain.message.channel_schema import DEFAULT, ChannelSchemas
from brain.message.commands import Command, Reply
from brain.message.cursor import Cursor
from brain.message.event import Event, Operation
from brain.message.json_text import dumps, is_object
from brain.message.row_messages import Left, Message, row_reference
from brain.message.snapshot import Part
from brain.message.timestamps import iso_milliseconds
from brain.message.wire_format import Welcome, WireFormat
from brain.message.wire_model import Timestamp, WireModel


class Text(WireModel):
    """A sentence for people."""

    message: str


class Connected(WireModel):
    """The first message of every connection."""

    type: Literal["connected"] = "connected"
    data: Text
    timestamp: Timestamp


class Echo(WireModel):
    """What the client sent, sent back to it."""

    type: Literal["echo"] = "echo"
    data: dict[str, Any]
    timestamp: Timestamp


class Reset(WireModel):
    """What the client missed cannot be sent; `data.message` says why."""

    type: Literal["reset"] = "reset"
    data: Text
    timestamp: Timestamp


class Rows(WireModel):
    """Rows of one watched table."""

    channel: str
    rows: list[dict[str, Any]]
    more: bool
    """True if another part of the snapshot follows."""


class SnapshotPart(WireModel):
    """What the tables hold where the messages after it go on."""

    type: Literal["snapshot"] = "snapshot"
    data: Rows
    timestamp: Timestamp


class AnyText(RootModel[Any]):
    """Any text: it is sent back to the client as an `echo`."""


class BaseFormat(WireFormat):
    """Speaks with the clients of `/ws`."""

    name = "base"
    received_models: Sequence[type[BaseModel]] = (AnyText,)

    def __init__(
        self,
        schemas: ChannelSchemas | None = None,
        greeting: str = "Connected to Brain",
    ) -> None:
        """`schemas` know how rows are shown; `greeting` is the text of `connected`."""
        self._schemas = schemas or ChannelSchemas()
        self._greeting = Text(message=greeting)
        shown = [model for schema in self._schemas.values() for model in schema.models]
        own: list[type[BaseModel]] = [Connected, *shown, Message, Left, SnapshotPart, Reset, Echo]
        self.sent_models = own

    def greet(self, welcome: Welcome) -> Iterator[str]:
        yield Connected(data=self._greeting, timestamp=welcome.now).model_dump_json()

    def render(self, event: Event) -> str | None:
        if event.operation is Operation.RESET:
            data = {"message": orjson.Fragment(event.data or "null")}
            return dumps({"type": "reset", "data": data, "timestamp": iso_milliseconds(event.at)})
        if event.operation is Operation.PUBLISH:
            return DEFAULT.render(event)
        return self._schemas[event.channel].render(event)

    def render_leaving(self, event: Event) -> str | None:
        left = {"type": "left", "data": row_reference(event)}
        return dumps(left | {"timestamp": iso_milliseconds(event.at)})

    def render_part(self, part: Part, now: datetime) -> str | None:
        shown = [orjson.Fragment(row) for row in self._schemas.show_rows(part.channel, part.rows)]
        data = {"channel": part.channel, "rows": shown, "more": part.cursor is None}
        return dumps({"type": "snapshot", "data": data, "timestamp": iso_milliseconds(now)})

    def receive(self, text: str, now: datetime, cursor: Callable[[], Cursor]) -> Sequence[Command]:
        """Echo an object as it was written; any other text as its `message`."""
        echo = {
            "type": "echo",
            "data": orjson.Fragment(text) if is_object(text) else {"message": text},
            "timestamp": iso_milliseconds(now),
        }
        return (Reply(orjson.dumps(echo).decode()),)
