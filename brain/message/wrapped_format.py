"""A wire format that speaks like another one; a subclass says where it differs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from brain.message.commands import Command
from brain.message.cursor import Cursor
from brain.message.event import Event
from brain.message.snapshot import Part
from brain.message.wire_format import Welcome, WireFormat


class WrappedFormat(WireFormat):
    """Does everything as `plain` does it."""

    def __init__(self, plain: WireFormat, difference: str) -> None:
        """`difference` is added to the name."""
        self._plain = plain
        self.name = f"{plain.name} {difference}"
        self.heartbeat_seconds = plain.heartbeat_seconds
        self.client_timeout_seconds = plain.client_timeout_seconds
        self.going_away_code = plain.going_away_code
        self.sent_models = plain.sent_models
        self.received_models = plain.received_models

    def greet(self, welcome: Welcome) -> Iterable[str]:
        return self._plain.greet(welcome)

    def render(self, event: Event) -> str | None:
        return self._plain.render(event)

    def render_leaving(self, event: Event) -> str | None:
        return self._plain.render_leaving(event)

    def render_part(self, part: Part, now: datetime) -> str | None:
        return self._plain.render_part(part, now)

    def receive(self, text: str, now: datetime, cursor: Callable[[], Cursor]) -> Sequence[Command]:
        return self._plain.receive(text, now, cursor)

    def confirm(self, command: Command, now: datetime) -> str | None:
        return self._plain.confirm(command, now)

    def refuse(self, reason: str, now: datetime) -> str | None:
        return self._plain.refuse(reason, now)

    def add_cursor(self, text: str, cursor: Callable[[], Cursor]) -> str:
        return self._plain.add_cursor(text, cursor)

    def heartbeat(self, now: datetime, cursor: Cursor) -> str | None:
        return self._plain.heartbeat(now, cursor)

    def reset(self, reason: str, now: datetime, cursor: Cursor) -> str | None:
        return self._plain.reset(reason, now, cursor)
