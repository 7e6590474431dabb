"""The models of everything that `/ws` sends, for tests that validate rendered messages."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, TypeAdapter

from brain.message.base_format import Connected, Echo, SnapshotPart
from brain.message.cursor_format import Heartbeat, Reset
from brain.message.row_messages import Left, Message
from brain.systems.shared_tables.tasks.run_messages import Run, RunTruncated

OwnMessage = Annotated[
    Connected | Run | RunTruncated | Left | Echo | Heartbeat | Reset | SnapshotPart,
    Field(discriminator="type"),
]
ServerMessage = Annotated[OwnMessage | Message, Field(union_mode="left_to_right")]

SERVER_MESSAGE: TypeAdapter[ServerMessage] = TypeAdapter(ServerMessage)
