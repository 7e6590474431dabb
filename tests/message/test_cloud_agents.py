from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brain.message.acts import Act, Refresh, Reject, Say, StatePresence, Subscribe
from brain.message.cloud_agents import OWN_MESSAGE, CloudAgentsFormat
from brain.message.event import Event
from brain.message.runs import RunsFormat
from brain.message.wire_format import Welcome, WireFormat
from tests.message.rows import (
    AT,
    HERE,
    deleted,
    gone,
    inserted,
    published,
    truncated,
    updated,
)
from tests.seeds.printed import printed

DOCUMENT = "5-code-cloud-agents.md"
THEN = datetime(2025, 12, 26, 13, tzinfo=UTC)
TOLD_AT = "2026-02-06T01:30:15.250Z"

RUNS = RunsFormat()
FORMAT: WireFormat = CloudAgentsFormat(RUNS)

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


def parsed(text: str | None) -> dict[str, Any]:
    """Return a message of these clients' own, which a model has to know."""
    assert text is not None
    OWN_MESSAGE.validate_json(text)
    message: dict[str, Any] = json.loads(text)
    return message


def told(event: Event) -> dict[str, Any]:
    return parsed(FORMAT.render(event))


def hear(said: Any) -> Act | None:
    """Return the one thing that comes of what a client says, if any."""
    acts = FORMAT.hear(said if isinstance(said, str) else json.dumps(said), AT, HERE)
    assert len(acts) <= 1
    return acts[0] if acts else None


def require_same(message: dict[str, Any], expected: dict[str, Any]) -> None:
    """Fail unless a message is the printed one, its keys in the same order."""
    assert message == expected
    assert list(message) == list(expected)
    if "data" in expected:
        assert list(message["data"]) == list(expected["data"])


def test_the_greeting_is_that_of_ws_and_then_the_printed_one() -> None:
    first, second = FORMAT.greet(Welcome(THEN, HERE, uuid4(), "user_abc123"))

    assert json.loads(first) == {
        "type": "connected",
        "data": {"message": "Connected to Cecelia Brain"},
        "timestamp": "2025-12-26T13:00:00.000Z",
    }
    (expected,) = printed(DOCUMENT, "auth")
    require_same(parsed(second), expected)


def test_a_client_that_nobody_knows_is_told_so() -> None:
    _, second = FORMAT.greet(Welcome(THEN, HERE, uuid4(), None))

    assert parsed(second)["data"] == {"success": False}


def test_the_pulse_comes_every_thirty_seconds_and_silence_may_last_sixty() -> None:
    assert (FORMAT.pulse_seconds, FORMAT.silence_seconds) == (30, 60)
    assert parsed(FORMAT.pulse(THEN, HERE)) == {
        "type": "ping",
        "timestamp": "2025-12-26T13:00:00.000Z",
    }


def test_a_ping_is_answered_as_printed_and_a_pong_is_not() -> None:
    (said,), (expected,) = printed(DOCUMENT, "ping"), printed(DOCUMENT, "pong")

    (answer,) = FORMAT.hear(json.dumps(said), THEN, HERE)

    assert isinstance(answer, Say)
    require_same(parsed(answer.text), expected)
    assert hear({"type": "pong", "timestamp": "?"}) is None


def test_an_agent_is_told_as_printed() -> None:
    (expected,) = printed(DOCUMENT, "agent_status")

    require_same(told(updated("agents", AGENT, THEN, progress=40)), expected)


def test_what_is_said_is_told_as_printed() -> None:
    (expected,) = printed(DOCUMENT, "chat_message")

    require_same(told(inserted("messages", MESSAGE, THEN)), expected)


def test_what_is_reworded_is_told_again() -> None:
    message = told(updated("messages", MESSAGE, content="Task completed"))

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
def test_what_is_published_is_told_as_printed(type: str, channel: str) -> None:
    expected = printed(DOCUMENT, type)[-1]

    require_same(told(published(channel, type, expected["data"], THEN)), expected)


def test_presence_is_stated_as_printed() -> None:
    said, _ = printed(DOCUMENT, "user_presence")

    assert hear(said) == StatePresence("online")
    assert hear({"type": "user_presence", "data": "away"}) == StatePresence("away")
    assert hear({"type": "user_presence", "data": "busy"}) == StatePresence("busy")


def test_what_cannot_be_meant_is_rejected_as_printed() -> None:
    (expected,) = printed(DOCUMENT, "error")

    act = hear("hello")

    assert isinstance(act, Reject)
    text = FORMAT.reject(act.why, THEN)
    require_same(parsed(text), expected)


@pytest.mark.parametrize(
    "said",
    [
        {"type": "user_presence", "data": "offline"},
        {"type": "user_presence", "data": "gone"},
        {"type": "user_presence"},
        {"type": "user_presence", "data": {"status": "online"}},
        {"type": "subscribe", "channel": "tasks"},
        {"type": "auth"},
        {"test": "Hello"},
        "[" * 20_000,
    ],
)
def test_nothing_else_can_be_meant(said: Any) -> None:
    assert hear(said) == Reject("Invalid message format")


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
def test_whatever_is_said_something_comes_of_it_that_can_be_told(said: str) -> None:
    act = hear(said)

    match act:
        case None:
            assert json.loads(said)["type"] == "pong"
        case Reject():
            parsed(FORMAT.reject(act.why, AT))
        case Say():
            parsed(act.text)
        case Refresh():
            parsed(FORMAT.confirm(act, AT))
        case _:
            assert act == StatePresence("online")
            assert FORMAT.confirm(act, AT) is None


def test_another_token_is_taken_and_confirmed() -> None:
    assert hear({"type": "auth", "token": "abc"}) == Refresh("abc")
    assert parsed(FORMAT.confirm(Refresh("abc"), AT)) == {
        "type": "auth",
        "data": {"success": True},
        "timestamp": TOLD_AT,
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
def test_a_status_is_told_as_a_state(status: str, state: str) -> None:
    bare = {**AGENT, "status": status, "name": None, "current_task": None, "progress": None}

    assert told(inserted("agents", bare))["data"] == {"agentName": "agent-1", "state": state}


@pytest.mark.parametrize(
    "former",
    [{"status": "idle"}, {"name": "a"}, {"current_task": None}, {"progress": 1, "error": "x"}],
)
def test_what_these_clients_see_of_an_agent_is_told_when_it_changes(
    former: dict[str, Any],
) -> None:
    assert told(updated("agents", AGENT, **former))["data"]["progress"] == 45


@pytest.mark.parametrize(
    ("status", "former"),
    [
        ("working", {"heartbeat_at": None}),
        ("working", {"health": {}, "error": "x"}),
        ("error", {"status": "stopped"}),
        ("idle", {"status": "online"}),
    ],
)
def test_what_they_do_not_see_is_not_told(status: str, former: dict[str, Any]) -> None:
    assert FORMAT.render(updated("agents", {**AGENT, "status": status}, **former)) is None


def test_an_agent_that_is_deleted_has_stopped_and_one_that_is_renamed_goes_on() -> None:
    assert told(deleted("agents", AGENT))["data"]["state"] == "stopped"
    assert told(updated("agents", {**AGENT, "id": "agent-2"}, id="agent-1"))["data"]["state"] == (
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
        gone("tasks"),
        gone("agents"),
        deleted("messages", MESSAGE),
        inserted("orders", {"id": 1}),
        published("agents", "agent_started", {"agent_id": "a"}),
        published("tasks", "note", "x"),
    ],
)
def test_everything_else_is_told_as_the_clients_of_ws_are_told_it(event: Event) -> None:
    assert FORMAT.render(event) == RUNS.render(event)


def test_a_row_of_a_foreign_table_is_logged_and_not_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert FORMAT.render(inserted("agents", {**AGENT, "status": "asleep"})) is None
    assert "agent-1" in caplog.text


def test_a_row_that_leaves_a_filter_is_named_by_its_key() -> None:
    assert json.loads(FORMAT.render_leaving(updated("agents", AGENT, status="idle")) or "") == {
        "type": "left",
        "data": {"channel": "agents", "key": ["agent-1"]},
        "timestamp": TOLD_AT,
    }


def test_these_clients_are_told_of_no_reset() -> None:
    assert FORMAT.reset("why", AT, HERE) is None
