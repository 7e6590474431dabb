from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from brain.close_codes import CloseCode
from brain.message.base_format import BaseFormat
from brain.message.channel_schema import ChannelSchemas
from brain.message.commands import Command, Refuse, Reply, Subscribe
from brain.message.cursor import Cursor
from brain.message.cursor_format import CursorFormat
from brain.message.event import Event
from brain.message.snapshot import PART_ROWS, Snapshot, parts_of
from brain.message.wire_format import Welcome
from brain.systems.shared_tables.tasks.run_messages import RunSchema
from tests.message.models import SERVER_MESSAGE
from tests.message.rows import as_json, inserted, reset, truncated, updated

AT = datetime(2026, 2, 6, 1, 30, 15, tzinfo=UTC)
CURSOR = Cursor(7, 8)
PLAIN = BaseFormat(ChannelSchemas([RunSchema()]))
FORMAT = CursorFormat(PLAIN)
TASK = {"id": "a", "status": "running", "progress": 1, "agent": None, "error": None}


def parts(tables: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the messages of a snapshot."""
    written = {channel: [as_json(row) for row in rows] for channel, rows in tables.items()}
    snapshot = Snapshot(written, CURSOR, frozenset(tables))
    texts = [str(FORMAT.render_part(part, AT)) for part in parts_of(snapshot)]
    for text in texts:
        message = json.loads(text)
        del message["cursor"]
        SERVER_MESSAGE.validate_python(message)
    return [json.loads(text) for text in texts]


def test_a_task_has_the_shape_that_it_has_in_other_messages() -> None:
    (message,) = parts({"tasks": [TASK]})

    assert list(message) == ["type", "data", "timestamp", "cursor"]
    assert message["type"] == "snapshot"
    assert message["data"] == {
        "channel": "tasks",
        "rows": [
            {
                "id": "a",
                "status": "in_progress",
                "progress": 1,
                "task_id": "a",
                "agent": None,
                "started_at": None,
                "completed_at": None,
                "error": None,
            }
        ],
        "more": False,
    }
    assert message["cursor"] == str(CURSOR)


def test_rows_of_other_tables_are_sent_as_they_are() -> None:
    (message,) = parts({"orders": [{"id": 1, "paid": True}]})

    assert message["data"]["rows"] == [{"id": 1, "paid": True}]


def test_only_the_last_of_several_messages_has_the_cursor() -> None:
    orders = [{"id": number} for number in range(PART_ROWS + 1)]
    messages = parts({"orders": orders, "empty": []})

    assert [len(message["data"]["rows"]) for message in messages] == [0, PART_ROWS, 1]
    assert [message["data"]["channel"] for message in messages] == ["empty", "orders", "orders"]
    assert [message["data"]["more"] for message in messages] == [True, True, False]
    assert [message["cursor"] for message in messages] == [None, None, str(CURSOR)]


def test_an_empty_snapshot_is_one_message() -> None:
    (message,) = parts({"orders": []})

    assert message["data"] == {"channel": "orders", "rows": [], "more": False}
    assert message["cursor"] == str(CURSOR)


def test_a_client_that_may_read_no_channel_gets_an_empty_snapshot_and_a_cursor() -> None:
    (part,) = parts_of(Snapshot({}, CURSOR))
    text = str(CursorFormat(BaseFormat()).render_part(part, AT))

    assert json.loads(text)["data"] == {"channel": "", "rows": [], "more": False}
    assert json.loads(text)["cursor"] == str(CURSOR)


def test_a_row_that_cannot_be_shown_is_left_out() -> None:
    (message,) = parts({"tasks": [TASK, TASK | {"id": "b", "status": "cancelled"}]})

    assert [row["id"] for row in message["data"]["rows"]] == ["a"]


@pytest.mark.parametrize("event", [inserted("tasks", TASK), reset("tasks"), truncated("orders")])
def test_every_message_is_that_of_the_plain_format_with_a_cursor(event: Event) -> None:
    plain, resumable = PLAIN.render(event), FORMAT.render(event)

    assert (plain is None) == (resumable is None)
    if plain is not None:
        assert json.loads(resumable or "") == {**json.loads(plain), "cursor": str(event.cursor)}


def test_the_greeting_and_the_echo_have_the_cursor_of_what_was_sent_before() -> None:
    (greeting,) = FORMAT.greet(Welcome(AT, CURSOR, uuid4(), None))
    (command,) = FORMAT.receive("hello", AT, lambda: CURSOR)

    assert isinstance(command, Reply)
    for text, type in ((greeting, "connected"), (command.text, "echo")):
        message = json.loads(text)
        assert (message["type"], message["cursor"]) == (type, str(CURSOR))


def test_that_a_row_leaves_is_sent_with_the_cursor_after_the_event() -> None:
    event = updated("tasks", TASK, agent="dev")

    message = json.loads(FORMAT.render_leaving(event) or "")

    assert (message["type"], message["cursor"]) == ("left", str(event.cursor))


def test_heartbeats_and_resets_are_sent_with_a_cursor() -> None:
    assert PLAIN.heartbeat(AT, CURSOR) is PLAIN.reset("reason", AT, CURSOR) is None
    heartbeat = json.loads(FORMAT.heartbeat(AT, CURSOR) or "")
    reset = json.loads(FORMAT.reset("reason", AT, CURSOR) or "")

    for message in (heartbeat, reset):
        assert message.pop("cursor") == str(CURSOR)
        SERVER_MESSAGE.validate_python(message)
    assert (heartbeat["type"], heartbeat["data"]) == ("heartbeat", {})
    assert (reset["type"], reset["data"]) == ("reset", {"message": "reason"})


class OtherFormat(BaseFormat):
    """Replies to nothing, and has settings of its own."""

    name = "other"
    heartbeat_seconds = 30.0
    client_timeout_seconds = 60.0
    going_away_code = CloseCode.GOING_AWAY

    def receive(self, text: str, now: datetime, cursor: Callable[[], Cursor]) -> Sequence[Command]:
        return (Subscribe(text), Refuse("reason"))

    def heartbeat(self, now: datetime, cursor: Cursor) -> str | None:
        return '{"type":"ping"}'

    def confirm(self, command: Command, now: datetime) -> str | None:
        return '{"type":"confirmed"}'

    def refuse(self, reason: str, now: datetime) -> str | None:
        return '{"type":"refused"}'


def test_all_else_is_as_in_the_plain_format() -> None:
    resumable = CursorFormat(OtherFormat())

    def never() -> Cursor:
        raise AssertionError("the cursor was looked up needlessly")

    assert list(resumable.receive("tasks", AT, never)) == [Subscribe("tasks"), Refuse("reason")]
    assert resumable.heartbeat(AT, CURSOR) == f'{{"type":"ping","cursor":"{CURSOR}"}}'
    assert resumable.confirm(Subscribe("tasks"), AT) == '{"type":"confirmed"}'
    assert resumable.refuse("reason", AT) == '{"type":"refused"}'
    with_cursor = f'{{"type":"refused","cursor":"{CURSOR}"}}'
    assert resumable.add_cursor('{"type":"refused"}', lambda: CURSOR) == with_cursor
    assert OtherFormat().add_cursor('{"type":"refused"}', never) == '{"type":"refused"}'
    assert (resumable.heartbeat_seconds, resumable.client_timeout_seconds) == (30, 60)
    assert resumable.name != OtherFormat.name


def test_when_the_server_stops_clients_are_closed_as_those_of_the_plain_format() -> None:
    assert CursorFormat(OtherFormat()).going_away_code is CloseCode.GOING_AWAY
