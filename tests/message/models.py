"""What a wire format sends and receives, parsed; the models of everything that `/ws` sends."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from brain.message.base_format import Connected, Echo, Reset, SnapshotPart
from brain.message.commands import Command
from brain.message.cursor_format import Heartbeat
from brain.message.row_messages import Left, Message
from brain.message.wire_format import WireFormat
from brain.systems.shared_tables.tasks.run_messages import Run, RunTruncated
from tests.message.rows import AT, HERE

OwnMessage = Annotated[
    Connected | Run | RunTruncated | Left | Echo | Heartbeat | Reset | SnapshotPart,
    Field(discriminator="type"),
]
ServerMessage = Annotated[OwnMessage | Message, Field(union_mode="left_to_right")]

SERVER_MESSAGE: TypeAdapter[ServerMessage] = TypeAdapter(ServerMessage)


def command_in(wire_format: WireFormat, frame: Any) -> Command | None:
    """Return the one command in a client frame, if any."""
    text = frame if isinstance(frame, str) else json.dumps(frame)
    commands = wire_format.receive(text, AT, lambda: HERE)
    assert len(commands) <= 1
    return commands[0] if commands else None


def parsed_as(models: TypeAdapter[Any], text: str | None) -> dict[str, Any]:
    """Return a message; fail if there is none, or if it is of none of the models."""
    assert text is not None
    models.validate_json(text)
    message: dict[str, Any] = json.loads(text)
    return message
