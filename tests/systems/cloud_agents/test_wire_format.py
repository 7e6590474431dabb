from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brain.errors import RowNotShown
from brain.message.base_format import BaseFormat
from brain.message.channel_schema import ChannelSchemas
from brain.message.commands import Command, Reauthenticate, Refuse, Reply, SetPresence, Subscribe
from brain.message.event import Event
from brain.message.wire_format import Welcome, WireFormat
from brain.systems.cloud_agents.wire_format import OWN_MESSAGE, CloudAgentsFormat
from brain.systems.shared_tables.tasks.run_messages import RunSchema
from tests.message.models import command_in, parsed_as
from tests.message.rows import AT, HERE, deleted, inserted, published, reset, truncated, updated
from tests.seeds.printed import printed

DOCUMENT = "5-code-cloud-agents.md"
THEN = datetime(2025, 12, 26, 13, tzinfo=UTC)
PRINTED_AT = "2026-02-06T01:30:15.250Z"

SCHEMAS = ChannelSchemas([RunSchema()])
GREETING = "Connected to Cecelia Brain"
BASE = BaseFormat(SCHEMAS, GREETING)
FORMAT: WireFormat = CloudAgentsFormat(SCHEMAS, GREETING)
parsed = partial(parsed_as, OWN_MESSAGE)

AGENT = {
    "id": "agent-1",
    "name": "CLOUD_ASSISTANT",
    "status": "working",
    "current_task": "Processing webhook event",
    "progress": 45,
    "error": None,
    "health": {},
    "heartbeat_at": None,
}
MESSAGE = {
    "id": "msg-456",
    "conversation_id": "conv-123",
    "sender": "ENGINEERING_LEAD_SUPERVISOR",
    "content": "Task completed successfully!",
    "created_at": "2025-12-26T14:00:00+01:00",
}
TASK = {"id": "task-123", "agent": "dev", "status": "running", "progress": 5}


def sent(event: Event) -> dict[str, Any]:
    return parsed(FORMAT.render(event))


def received(frame: Any) -> Command | None:
    return command_in(FORMAT, frame)


def require_same(message: dict[str, Any], expected: dict[str, Any]) -> None:
    """Fail unless a message is the printed one, its keys in the same order."""
    assert message == expected
    assert list(message) == list(expected)
    if "data" in expected:
        assert list(message["data"]) == list(expected["data"])


def test_the_greeting_is_the_printed_one_and_then_that_of_ws() -> None:
    first, second = FORMAT.greet(Welcome(THEN, HERE, uuid4(), "user_abc123"))

    assert json.loads(second) == {
        "type": "connected",
        "data": {"message": "Connected to Cecelia Brain"},
        "timestamp": "2025-12-26T13:00:00.000Z",
    }
    (expected,) = printed(DOCUMENT, "auth")
    require_same(parsed(first), expected)
    (only,) = CloudAgentsFormat(greeting=None).greet(Welcome(THEN, HERE, uuid4(), "user_abc123"))
    assert only == first


def test_a_client_with_an_invalid_token_is_greeted_without_success() -> None:
    first, _ = FORMAT.greet(Welcome(THEN, HERE, uuid4(), None))

    assert parsed(first)["data"] == {"success": False, "error": "Auth failed"}


def test_the_heartbeat_comes_every_thirty_seconds_and_silence_may_last_sixty() -> None:
    assert (FORMAT.heartbeat_seconds, FORMAT.client_timeout_seconds) == (30, 60)
    assert parsed(FORMAT.heartbeat(THEN, HERE)) == {
        "type": "ping",
        "timestamp": "2025-12-26T13:00:00.000Z",
    }


def test_a_ping_is_answered_as_printed_and_a_pong_is_not() -> None:
    (ping,), (expected,) = printed(DOCUMENT, "ping"), printed(DOCUMENT, "pong")

    (reply,) = FORMAT.receive(json.dumps(ping), THEN, lambda: HERE)

    assert isinstance(reply, Reply)
    require_same(parsed(reply.text), expected)
    assert received({"type": "pong", "timestamp": "?"}) is None


def test_an_agent_is_sent_as_printed() -> None:
    (expected,) = printed(DOCUMENT, "agent_status")

    require_same(sent(updated("agents", AGENT, THEN, progress=40)), expected)


def test_a_chat_message_is_sent_as_printed() -> None:
    (expected,) = printed(DOCUMENT, "chat_message")

    require_same(sent(inserted("messages", MESSAGE, THEN)), expected)


def test_an_edited_chat_message_is_sent_again() -> None:
    message = sent(updated("messages", MESSAGE, content="Task completed"))

    assert message["data"]["messageId"] == "msg-456"
    assert message["data"]["timestamp"] == "2025-12-26T13:00:00.000Z"


@pytest.mark.parametrize(
    ("type", "channel"),
    [
        ("notification", "notifications"),
        ("user_presence", "presence"),
        ("agent_status", "agents"),
        ("chat_message", "messages"),
    ],
)
def test_a_published_message_is_sent_as_printed(type: str, channel: str) -> None:
    expected = printed(DOCUMENT, type)[-1]

    require_same(sent(published(channel, type, expected["data"], THEN)), expected)


def test_presence_is_set_as_printed() -> None:
    frame, _ = printed(DOCUMENT, "user_presence")

    assert received(frame) == SetPresence("online")
    assert received({"type": "user_presence", "data": "away"}) == SetPresence("away")
    assert received({"type": "user_presence", "data": "busy"}) == SetPresence("busy")
    assert received({"type": "user_presence", "data": "offline"}) == SetPresence("offline")


def test_a_refusal_is_as_printed() -> None:
    (expected,) = printed(DOCUMENT, "error")

    command = received("hello")

    assert isinstance(command, Refuse)
    text = FORMAT.refuse(command.reason, THEN)
    require_same(parsed(text), expected)


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "user_presence", "data": "gone"},
        {"type": "user_presence"},
        {"type": "user_presence", "data": {"status": "online"}},
        {"type": "subscribe", "channel": "tasks"},
        {"type": "auth"},
        {"test": "Hello"},
        "[" * 20_000,
    ],
)
def test_any_other_frame_is_refused(frame: Any) -> None:
    assert received(frame) == Refuse("Invalid message format")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
FRAMES = st.fixed_dictionaries(
    {"type": st.sampled_from(["ping", "pong", "user_presence", "auth", "?"])},
    optional={"data": st.sampled_from(["online", "offline"]) | JSON, "token": st.text() | JSON},
).map(json.dumps)


@given(st.text() | JSON.map(json.dumps) | FRAMES)
def test_any_frame_is_a_command_with_a_valid_answer(frame: str) -> None:
    command = received(frame)

    match command:
        case None:
            assert json.loads(frame)["type"] == "pong"
        case Refuse():
            parsed(FORMAT.refuse(command.reason, AT))
        case Reply():
            parsed(command.text)
        case Reauthenticate():
            parsed(FORMAT.confirm(command, AT))
        case _:
            assert command in (SetPresence("online"), SetPresence("offline"))
            assert FORMAT.confirm(command, AT) is None


def test_another_token_is_accepted_and_confirmed() -> None:
    assert received({"type": "auth", "token": "abc"}) == Reauthenticate("abc")
    assert parsed(FORMAT.confirm(Reauthenticate("abc"), AT)) == {
        "type": "auth",
        "data": {"success": True},
        "timestamp": PRINTED_AT,
    }
    assert FORMAT.confirm(Subscribe("tasks"), AT) is None


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("idle", "idle"),
        ("online", "idle"),
        ("working", "working"),
        ("stopped", "stopped"),
        ("offline", "stopped"),
        ("error", "stopped"),
    ],
)
def test_a_status_is_sent_as_a_state(status: str, state: str) -> None:
    bare = {**AGENT, "status": status, "name": None, "current_task": None, "progress": None}

    assert sent(inserted("agents", bare))["data"] == {"agentName": "agent-1", "state": state}


@pytest.mark.parametrize(
    "former",
    [{"status": "idle"}, {"name": "a"}, {"current_task": None}, {"progress": 1, "error": "x"}],
)
def test_a_change_that_these_clients_see_of_an_agent_is_sent(
    former: dict[str, Any],
) -> None:
    assert sent(updated("agents", AGENT, **former))["data"]["progress"] == 45


@pytest.mark.parametrize(
    ("status", "former"),
    [
        ("working", {"heartbeat_at": None}),
        ("working", {"health": {}, "error": "x"}),
        ("error", {"status": "stopped"}),
        ("idle", {"status": "online"}),
    ],
)
def test_a_change_that_they_do_not_see_is_not_sent(status: str, former: dict[str, Any]) -> None:
    assert FORMAT.render(updated("agents", {**AGENT, "status": status}, **former)) is None


def test_an_agent_that_is_deleted_has_stopped_and_one_that_is_renamed_goes_on() -> None:
    assert sent(deleted("agents", AGENT))["data"]["state"] == "stopped"
    assert sent(updated("agents", {**AGENT, "id": "agent-2"}, id="agent-1"))["data"]["state"] == (
        "working"
    )


@pytest.mark.parametrize(
    "event",
    [
        updated("tasks", {**TASK, "status": "completed"}, status="running"),
        updated("tasks", TASK, progress=4),
        deleted("tasks", TASK),
        truncated("tasks"),
        truncated("agents"),
        reset("tasks"),
        reset("agents"),
        deleted("messages", MESSAGE),
        inserted("orders", {"id": 1}),
        published("agents", "agent_started", {"agent_id": "a"}),
        published("tasks", "note", "x"),
    ],
)
def test_any_other_event_is_sent_as_in_the_base_format(event: Event) -> None:
    assert FORMAT.render(event) == BASE.render(event)


@pytest.mark.parametrize("status", ["asleep", "away", None])
def test_an_agent_with_an_unknown_status_cannot_be_shown(status: str | None) -> None:
    with pytest.raises(RowNotShown, match=r"^state: Input should be 'idle', 'working' or"):
        CloudAgentsFormat().render(inserted("agents", {**AGENT, "status": status}))


def test_a_message_names_the_columns_that_its_row_lacks() -> None:
    long = inserted("messages", {**MESSAGE, "content": None}).with_values(omitted=("content",))
    busy = inserted("agents", AGENT).with_values(omitted=("current_task",))

    assert (sent(long)["data"]["content"], sent(long)["omitted"]) == ("", ["content"])
    assert sent(busy)["omitted"] == ["current_task"]


EXACT = ["12345678901234567890.12", "1.10", "1e400"]


@pytest.mark.parametrize("progress", EXACT)
def test_progress_keeps_all_its_digits(progress: str) -> None:
    (document,) = printed(DOCUMENT, "agent_status")
    for event in (
        inserted("agents", {**AGENT, "progress": "?"}),
        published("agents", "agent_status", {**document["data"], "progress": "?"}),
    ):
        assert event.data is not None
        exact = event.with_values(data=event.data.replace('"?"', progress))
        text = FORMAT.render(exact) or ""
        assert f'"progress":{progress}' in text
        assert list(json.loads(text)) == ["type", "data", "timestamp"]


def test_a_published_number_is_a_text_with_all_its_digits() -> None:
    (document,) = printed(DOCUMENT, "chat_message")
    event = published("messages", "chat_message", {**document["data"], "conversationId": "?"})
    assert event.data is not None
    for digits in ("12345678901.123456789", "12345678901234567890", "1.10", "7"):
        exact = event.with_values(data=event.data.replace('"?"', digits))
        assert sent(exact)["data"]["conversationId"] == digits


@pytest.mark.parametrize("column", ["name", "current_task"])
def test_a_value_that_was_left_out_before_and_after_may_have_changed(column: str) -> None:
    row = {name: value for name, value in AGENT.items() if name != column}
    event = updated("agents", row).with_values(omitted=(column,))

    assert sent(event)["omitted"] == [column]


def test_other_digits_of_progress_are_a_change() -> None:
    exact = updated("agents", {**AGENT, "progress": "?"}, progress="!")
    assert exact.data is not None and exact.old is not None
    event = exact.with_values(
        data=exact.data.replace('"?"', "12345678901234567890.12"),
        old=exact.old.replace('"!"', "12345678901234567890.13"),
    )

    assert sent(event)["type"] == "agent_status"


@pytest.mark.parametrize("progress", [True, "half", " 7 ", [7]])
def test_a_published_status_with_no_number_as_progress_is_sent_as_it_is(progress: Any) -> None:
    event = published("agents", "agent_status", {"agentName": "a", "progress": progress})
    named = published(
        "agents", "agent_status", {"agentName": "a", "state": "idle", "progress": progress}
    )

    assert FORMAT.render(event) == BASE.render(event)
    assert FORMAT.render(named) == BASE.render(named)


@pytest.mark.parametrize(
    ("row", "key", "shown"),
    [
        *[({"progress": value}, "progress", None) for value in ("50%", "", "007", "NaN", True)],
        ({"current_task": ["x"]}, "currentTask", None),
        ({"name": {}}, "agentName", "agent-1"),
    ],
)
def test_a_column_of_another_type_hides_no_change_of_an_agent(
    row: dict[str, Any], key: str, shown: str | None
) -> None:
    message = sent(updated("agents", AGENT | row | {"status": "error"}, status="working"))

    assert message["data"]["state"] == "stopped"
    assert message["data"].get(key) == shown


@pytest.mark.parametrize("value", [None, {"text": "hello"}, [1], True, "\ud800"])
def test_a_column_of_another_type_hides_no_message_of_a_conversation(value: Any) -> None:
    row = {**MESSAGE, "conversation_id": value, "sender": value, "content": value}
    data = sent(inserted("messages", row))["data"]

    assert data["messageId"] == "msg-456"
    assert (data["conversationId"], data["sender"], data["content"]) == ("", "", "")


def test_a_row_that_leaves_a_filter_is_named_by_its_key() -> None:
    assert json.loads(FORMAT.render_leaving(updated("agents", AGENT, status="idle")) or "") == {
        "type": "left",
        "data": {"channel": "agents", "key": ["agent-1"]},
        "timestamp": PRINTED_AT,
    }


def test_these_clients_are_sent_no_reset() -> None:
    assert FORMAT.reset("reason", AT, HERE) is None
