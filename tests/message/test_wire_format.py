from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import uuid4

import pytest

from brain.close_codes import CloseCode
from brain.message.commands import Command, Reauthenticate, Subscribe
from brain.message.cursor import Cursor
from brain.message.event import Event
from brain.message.snapshot import Snapshot, parts_of
from brain.message.wire_format import Welcome, WireFormat
from tests.message.rows import AT, HERE, updated


class SmallFormat(WireFormat):
    name = "small"

    def render(self, event: Event) -> str | None:
        return str(event.key)

    def receive(self, text: str, now: datetime, cursor: Callable[[], Cursor]) -> Sequence[Command]:
        return ()


def test_a_format_of_a_name_render_and_receive_sends_nothing_but_events() -> None:
    small = SmallFormat()

    assert list(small.greet(Welcome(AT, HERE, uuid4(), "ann"))) == []
    assert small.render_leaving(updated("tasks", {"id": "a"}, agent="dev")) is None
    (part,) = parts_of(Snapshot({"tasks": ['{"id" : "a"}']}, HERE))
    assert small.render_part(part, AT) is None
    assert small.confirm(Subscribe("tasks"), AT) is None
    assert small.confirm(Reauthenticate("abc"), AT) is None
    assert small.refuse("reason", AT) is None
    assert small.heartbeat(AT, HERE) is None
    assert small.reset("reason", AT, HERE) is None


def test_by_default_clients_may_be_silent_and_are_closed_for_a_restart() -> None:
    small = SmallFormat()

    assert (small.heartbeat_seconds, small.client_timeout_seconds) == (None, None)
    assert small.going_away_code is CloseCode.SERVICE_RESTART


def test_a_format_without_render_or_receive_cannot_be_made() -> None:
    class Incomplete(WireFormat):
        name = "incomplete"

    with pytest.raises(TypeError, match="render"):
        Incomplete()  # type: ignore[abstract]
