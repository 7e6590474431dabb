"""What Brain knows of the rows of a channel; a system registers its own in place of the default."""

from __future__ import annotations

from collections.abc import Iterable

from brain.message.event import Event, Operation
from brain.message.json_text import dumps
from brain.message.row_messages import omitted, type_and_data
from brain.message.timestamps import iso_milliseconds


class ChannelSchema:
    """How the rows of a channel are shown in the base format: here, as they are in the table."""

    def __init__(self, channel: str = "") -> None:
        self.channel = channel

    def render(self, event: Event) -> str | None:
        """
        Return the message for `event`; None if it has none.

        Without a model: where messages are rare, making one takes longer than ten deliveries.
        """
        found = type_and_data(event)
        if found is None:
            return None
        type, data = found
        message = {"type": type, "data": data, "timestamp": iso_milliseconds(event.at)}
        return dumps(message | omitted(event))

    def show_row(self, row: str) -> str | None:
        """Return a row, as JSON, as a snapshot shows it; None if it cannot be shown."""
        return row

    def superseded_key(self, event: Event) -> str | None:
        """
        Return what a newer event with the same key supersedes; None if nothing supersedes `event`.

        Superseded are updates of the same row: not that it was inserted or deleted, nor anything
        published.
        """
        return f"{event.channel} {event.key}" if event.operation is Operation.UPDATE else None


DEFAULT = ChannelSchema()


class ChannelSchemas(dict[str, ChannelSchema]):
    """The registered schemas, by channel; every other channel has the default."""

    def __init__(self, schemas: Iterable[ChannelSchema] = ()) -> None:
        super().__init__((schema.channel, schema) for schema in schemas)

    def __missing__(self, channel: str) -> ChannelSchema:
        return DEFAULT

    def superseded_key(self, event: Event) -> str | None:
        """Return what `ChannelSchema.superseded_key` says of the event's channel."""
        return self[event.channel].superseded_key(event)

    def show_rows(self, channel: str, rows: Iterable[str]) -> list[str]:
        """Return the rows that can be shown, as a snapshot shows them."""
        show_row = self[channel].show_row
        return [shown for row in rows if (shown := show_row(row)) is not None]
