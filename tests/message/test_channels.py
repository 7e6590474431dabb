from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from brain.message.acts import Act, Refresh, Reject, Say, StatePresence, Subscribe, Unsubscribe
from brain.message.channels import SERVER_MESSAGE, ChannelsFormat
from brain.message.event import Event
from brain.message.topic import where_of
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

DOCUMENT = "2-brain-websocket-system.md"
THEN = datetime.fromtimestamp(1703001234.56, UTC)

FORMAT: WireFormat = ChannelsFormat()

MISSION = {
    "id": "mission_123",
    "name": "Deploy Application",
    "priority": "high",
    "status": "created",
    "result": None,
    "error": None,
}
AGENT = {
    "id": "ops_agent",
    "name": "Ops",
    "status": "working",
    "current_task": "deploy",
    "progress": 45,
    "error": None,
    "health": {"health": "good", "tasks": 5},
    "heartbeat_at": "2026-02-06T01:30:00+00:00",
}
TASK = {
    "id": "task_abc123",
    "agent": "dev",
    "status": "queued",
    "progress": 0,
    "started_at": None,
    "completed_at": None,
    "error": None,
}


def parsed(text: str | None) -> dict[str, Any]:
    """Return a message, which a model has to know."""
    assert text is not None
    SERVER_MESSAGE.validate_json(text)
    message: dict[str, Any] = json.loads(text)
    return message


def told(event: Event) -> dict[str, Any]:
    return parsed(FORMAT.render(event))


def hear(frame: Any) -> Act | None:
    """Return the one thing that comes of what a client says, if any."""
    acts = FORMAT.hear(frame if isinstance(frame, str) else json.dumps(frame), AT, HERE)
    assert len(acts) <= 1
    return acts[0] if acts else None


def test_the_greeting_is_the_printed_one() -> None:
    connection_id = UUID("0c8c5c5c-2a5a-4c7f-9d4e-1b1f3c1d2e3f")

    (text,) = FORMAT.greet(Welcome(THEN, HERE, connection_id, None))

    (expected,) = printed(DOCUMENT, "connected")
    assert list(json.loads(text)) == list(expected)
    assert parsed(text) == {**expected, "connection_id": str(connection_id)}


def test_the_pulse_is_the_printed_one_every_thirty_seconds() -> None:
    assert FORMAT.pulse_seconds == 30
    assert [parsed(FORMAT.pulse(THEN, HERE))] == printed(DOCUMENT, "ping")


def test_a_client_that_ignores_two_pings_is_disconnected() -> None:
    assert FORMAT.silence_seconds == 60
    assert hear({"type": "pong"}) is None


@pytest.mark.parametrize(
    ("act", "type"), [(Subscribe, "subscribed"), (Unsubscribe, "unsubscribed")]
)
def test_the_confirmations_are_the_printed_ones(act: type[Any], type: str) -> None:
    text = FORMAT.confirm(act("missions"), THEN)

    (expected,) = printed(DOCUMENT, type)
    assert list(parsed(text).items()) == list(expected.items())


def test_a_channel_is_subscribed_to_and_let_go() -> None:
    assert hear({"type": "subscribe", "channel": "missions"}) == Subscribe("missions")
    assert hear({"type": "unsubscribe", "channel": "missions"}) == Unsubscribe("missions")


def test_a_part_of_a_channel_is_named_by_columns_in_one_order() -> None:
    where = {"status": "failed", "agent": None, "progress": 5, "paid": True, "share": 0.5}
    expected = where_of(where)

    assert hear({"type": "subscribe", "channel": "tasks", "where": where}) == Subscribe(
        "tasks", expected
    )
    act = hear({"type": "unsubscribe", "channel": "tasks", "where": where})
    assert act == Unsubscribe("tasks", expected)
    assert isinstance(act, Unsubscribe)
    assert [type(value) for _, value, _ in act.where] == [type(value) for _, value, _ in expected]


def test_a_ping_of_the_client_is_answered() -> None:
    answer = hear({"type": "ping"})

    assert isinstance(answer, Say)
    assert parsed(answer.text) == {"type": "pong", "timestamp": AT.timestamp()}


def test_another_token_is_taken_and_confirmed() -> None:
    assert hear({"type": "auth", "token": "abc"}) == Refresh("abc")
    assert parsed(FORMAT.confirm(Refresh("abc"), THEN)) == {
        "type": "authenticated",
        "timestamp": 1703001234.56,
    }


def test_what_these_clients_cannot_ask_for_is_not_confirmed() -> None:
    assert FORMAT.confirm(StatePresence("online"), AT) is None


def test_keys_that_mean_nothing_are_passed_over() -> None:
    assert hear({"type": "pong", "timestamp": 1}) is None
    assert hear({"type": "subscribe", "channel": "a", "id": 7}) == Subscribe("a")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("hello", "expected a JSON object"),
        ("", "expected a JSON object"),
        ("[1]", "expected a JSON object"),
        ("null", "expected a JSON object"),
        ("[" * 20_000, "expected a JSON object"),
        ({}, "expected a type: auth, ping, pong, subscribe or unsubscribe"),
        ({"type": "hello"}, "expected a type: auth, ping, pong, subscribe or unsubscribe"),
        ({"type": ["ping"]}, "expected a type: auth, ping, pong, subscribe or unsubscribe"),
        ({"type": "subscribe"}, "channel: Field required"),
        ({"type": "subscribe", "channel": ""}, "channel: "),
        ({"type": "subscribe", "channel": "a\0b"}, "channel: "),
        ({"type": "subscribe", "channel": "a" * 1001}, "channel: "),
        ({"type": "subscribe", "channel": 5}, "channel: "),
        ({"type": "subscribe", "channel": "a", "where": [1]}, "where: "),
        ({"type": "subscribe", "channel": "a", "where": {"b": [1]}}, "where: "),
        ({"type": "subscribe", "channel": "a", "where": {"b": {}}}, "where: "),
        ('{"type": "subscribe", "channel": "a", "where": {"b": NaN}}', "where: "),
        ('{"type": "subscribe", "channel": "a", "where": {"b": 1e999}}', "where: "),
        (
            {"type": "subscribe", "channel": "a", "where": {str(n): n for n in range(33)}},
            "where: ",
        ),
        ({"type": "auth"}, "token: Field required"),
        ({"type": "auth", "token": ""}, "token: "),
    ],
)
def test_what_cannot_be_meant_is_rejected_with_a_short_reason(said: Any, why: str) -> None:
    act = hear(said)

    assert isinstance(act, Reject)
    assert act.why.startswith(why)
    assert len(act.why) < 200
    assert parsed(FORMAT.reject(act.why, THEN)) == {
        "type": "error",
        "error": act.why,
        "timestamp": 1703001234.56,
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
FRAMES = st.fixed_dictionaries(
    {"type": st.sampled_from(["subscribe", "unsubscribe", "ping", "pong", "auth", "?"])},
    optional={
        "channel": st.text() | JSON,
        "where": st.dictionaries(st.text(), JSON) | JSON,
        "token": st.text() | JSON,
    },
).map(json.dumps)


@given(st.text() | JSON.map(json.dumps) | FRAMES)
@example('{"type": "subscribe", "channel": "a", "where": {"b": ' + "9" * 5000 + "}}")
@example('{"type": "subscribe", "channel": "\\ud800"}')
def test_whatever_is_said_something_comes_of_it_that_can_be_told(said: str) -> None:
    act = hear(said)

    match act:
        case None:
            assert json.loads(said)["type"] == "pong"
        case Reject():
            parsed(FORMAT.reject(act.why, AT))
        case Say():
            parsed(act.text)
        case _:
            parsed(FORMAT.confirm(act, AT))
            hash(act)


@pytest.mark.parametrize("data", [{"mission_id": "mission_123", "n": [1, None]}, [1], "x", None])
def test_what_is_published_is_told_as_it_is_with_its_channel(data: Any) -> None:
    message = told(published("missions", "mission_update", data, THEN))

    assert list(message.items()) == [
        ("type", "mission_update"),
        ("channel", "missions"),
        ("data", data),
        ("timestamp", 1703001234.56),
    ]


@pytest.mark.parametrize(
    ("event", "type", "data"),
    [
        (inserted("orders", {"id": 1}), "orders_inserted", {"id": 1}),
        (updated("orders", {"id": 1, "a": 2}, a=1), "orders_updated", {"id": 1, "a": 2}),
        (deleted("orders", {"id": 1}), "orders_deleted", {"id": 1}),
        (truncated("orders"), "orders_truncated", {}),
        (truncated("tasks"), "tasks_truncated", {}),
    ],
)
def test_rows_of_other_tables_are_told_with_their_columns(
    event: Event, type: str, data: dict[str, Any]
) -> None:
    assert told(event) == {
        "type": type,
        "channel": event.channel,
        "data": data,
        "timestamp": AT.timestamp(),
    }


@pytest.mark.parametrize("channel", ["tasks", "missions", "agents", "orders"])
def test_a_large_row_that_is_gone_when_it_is_fetched_is_not_told(channel: str) -> None:
    assert FORMAT.render(gone(channel)) is None


def test_a_row_that_leaves_a_filter_is_named_by_its_key() -> None:
    assert parsed(FORMAT.render_leaving(updated("tasks", TASK, agent="ops"))) == {
        "type": "left",
        "channel": "tasks",
        "data": {"channel": "tasks", "key": ["task_abc123"]},
        "timestamp": AT.timestamp(),
    }


@pytest.mark.parametrize(
    ("old", "new", "type"),
    [
        (None, "created", "mission_created"),
        (None, "completed", "mission_completed"),
        ("created", "started", "mission_started"),
        ("started", "completed", "mission_completed"),
        ("started", "failed", "mission_failed"),
        ("failed", "started", "mission_started"),
    ],
)
def test_a_mission_is_told_by_the_status_that_it_turns_to(
    old: str | None, new: str, type: str
) -> None:
    row = {**MISSION, "status": new}

    message = told(
        inserted("missions", row) if old is None else updated("missions", row, status=old)
    )

    assert message["type"] == type
    assert message["data"] == {
        "mission_id": "mission_123",
        "name": "Deploy Application",
        "priority": "high",
        "status": new,
        "result": None,
        "error": None,
    }


def test_a_mission_ends_once_and_then_changes() -> None:
    done = {**MISSION, "status": "completed", "result": {"status": "success"}}

    assert told(updated("missions", done, status="started", result=None))["data"]["result"] == {
        "status": "success"
    }
    assert told(updated("missions", done, name="?"))["type"] == "mission_updated"
    assert told(updated("missions", done, id="mission_1"))["type"] == "mission_updated"
    assert told(deleted("missions", done))["type"] == "mission_deleted"


@pytest.mark.parametrize(
    ("old", "new", "type"),
    [
        (None, "queued", "task_queued"),
        (None, "running", "task_started"),
        ("queued", "running", "task_started"),
        ("queued", "in_progress", "task_started"),
        ("running", "completed", "task_completed"),
        ("in_progress", "failed", "task_failed"),
        ("failed", "queued", "task_queued"),
    ],
)
def test_a_task_is_told_by_the_status_that_it_turns_to(
    old: str | None, new: str, type: str
) -> None:
    row = {**TASK, "status": new}

    message = told(inserted("tasks", row) if old is None else updated("tasks", row, status=old))

    assert message["type"] == type
    assert message["data"]["task_id"] == "task_abc123"
    assert message["data"]["status"] == ("in_progress" if new == "running" else new)


def test_a_task_that_goes_on_is_updated_and_one_that_goes_is_deleted() -> None:
    running = {**TASK, "status": "running", "progress": 3}

    assert told(updated("tasks", running, progress=2))["type"] == "task_updated"
    assert told(updated("tasks", running, progress=2, status="in_progress"))["type"] == (
        "task_updated"
    )
    assert FORMAT.render(updated("tasks", running, status="in_progress")) is None
    assert told(deleted("tasks", running))["type"] == "task_deleted"


def test_a_task_that_the_wire_has_no_word_for_is_logged_and_not_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert FORMAT.render(inserted("tasks", {**TASK, "status": "cancelled"})) is None
    assert "task_abc123" in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "type"),
    [
        (None, "idle", "agent_started"),
        (None, "offline", "agent_stopped"),
        (None, "error", "agent_error"),
        ("stopped", "working", "agent_started"),
        ("error", "idle", "agent_started"),
        ("working", "stopped", "agent_stopped"),
        ("working", "error", "agent_error"),
        ("idle", "working", "agent_heartbeat"),
        ("stopped", "offline", "agent_heartbeat"),
    ],
)
def test_an_agent_is_told_by_how_it_is_shown(old: str | None, new: str, type: str) -> None:
    row = {**AGENT, "status": new}

    message = told(inserted("agents", row) if old is None else updated("agents", row, status=old))

    assert message["type"] == type
    assert message["data"]["agent_id"] == "ops_agent"


def test_an_agent_that_starts_is_told_with_all_that_is_known() -> None:
    assert told(inserted("agents", AGENT))["data"] == {
        "agent_id": "ops_agent",
        "name": "Ops",
        "status": "working",
        "current_task": "deploy",
        "progress": 45,
        "error": None,
        "health": {"health": "good", "tasks": 5},
        "heartbeat_at": "2026-02-06T01:30:00.000Z",
    }


def test_a_heartbeat_has_the_keys_of_one_that_is_published() -> None:
    data = told(updated("agents", AGENT, heartbeat_at=None))["data"]

    assert list(data) == ["agent_id", "status"]
    assert "agent_id" not in data["status"]
    assert data["status"]["health"] == {"health": "good", "tasks": 5}
    assert data["status"]["heartbeat_at"] == "2026-02-06T01:30:00.000Z"


def test_another_error_of_an_agent_is_an_error() -> None:
    failed = {**AGENT, "status": "error", "error": "b"}

    message = told(updated("agents", failed, error="a"))

    assert (message["type"], message["data"]["error"]) == ("agent_error", "b")
    assert told(updated("agents", failed, progress=1))["type"] == "agent_heartbeat"


def test_an_agent_that_is_deleted_or_renamed_has_stopped_under_its_id() -> None:
    stopped, started = (
        told(deleted("agents", AGENT)),
        told(updated("agents", {**AGENT, "id": "other"}, id="ops_agent")),
    )

    assert (stopped["type"], stopped["data"]["agent_id"]) == ("agent_stopped", "ops_agent")
    assert (started["type"], started["data"]["agent_id"]) == ("agent_started", "other")


def test_rows_whose_watch_names_their_messages_are_told_so() -> None:
    event = updated("agents", AGENT, progress=1)

    named = Event(
        event.cursor, event.at, "agents", event.operation, event.key, AGENT, event.old, 300, "moved"
    )

    assert (told(named)["type"], told(named)["data"]) == ("moved", AGENT)


def test_these_clients_are_told_neither_resets_nor_snapshots() -> None:
    assert FORMAT.reset("why", AT, HERE) is None
