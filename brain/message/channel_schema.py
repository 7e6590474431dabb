"""What Brain knows of the rows of a channel; a system registers its own in place of the default."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from brain.errors import RowNotShown
from brain.message.event import Event, Operation
from brain.message.json_text import dumps
from brain.message.row_messages import type_and_data
from brain.message.timestamps import iso_milliseconds
from brain.message.wire_model import WireModel
from brain.problems import Problems


class ChannelSchema:
    """How the rows of a channel are shown in the base format: here, as they are in the table."""

    models: Sequence[type[WireModel]] = ()
    """The models of the messages about them, beside `Message`, for documents."""

    def __init__(self, channel: str = "") -> None:
        self.channel = channel

    def render(self, event: Event) -> str | None:
        """
        Return the message for `event`; None if it has none. Raises `RowNotShown`.

        Without a model: where messages are rare, making one takes longer than ten deliveries.
        """
        found = type_and_data(event)
        if found is None:
            return None
        type, data = found
        omitted = f',"omitted":{dumps(event.omitted)}' if event.omitted else ""
        at = iso_milliseconds(event.at)
        return f'{{"type":{dumps(type)},"data":{data},"timestamp":"{at}"{omitted}}}'

    def show_row(self, row: str) -> str | None:
        """Return a row as a snapshot shows it; None if it does not. Raises `RowNotShown`."""
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

    def __init__(
        self, schemas: Iterable[ChannelSchema] = (), problems: Problems | None = None
    ) -> None:
        """`problems` gets the rows that cannot be shown."""
        self._problems = problems or Problems()
        super().__init__((schema.channel, schema) for schema in schemas)

    def __missing__(self, channel: str) -> ChannelSchema:
        return DEFAULT

    def superseded_key(self, event: Event) -> str | None:
        """Return what `ChannelSchema.superseded_key` says of the event's channel."""
        return self[event.channel].superseded_key(event)

    def show_rows(self, channel: str, rows: Iterable[str]) -> list[str]:
        """Return the rows that can be shown, as a snapshot shows them."""
        schema = self[channel]
        shown = [self._show_row(schema, channel, row) for row in rows]
        return [row for row in shown if row is not None]

    def _show_row(self, schema: ChannelSchema, channel: str, row: str) -> str | None:
        try:
            return schema.show_row(row)
        except Exception as error:
            # One row that cannot be shown must not hold up all others.
            is_expected = isinstance(error, RowNotShown)
            reason = str(error) if is_expected else f"{type(error).__name__}: {error}"
            self._problems.report(
                f"message {channel}",
                f"a row is left out of snapshots: {reason}",
                channel=channel,
                unexpected=None if is_expected else error,
            )
            return None
