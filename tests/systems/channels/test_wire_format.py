from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from brain.errors import RowNotShown
from brain.message.commands import (
    Command,
    Reauthenticate,
    Refuse,
    Reply,
    SetPresence,
    Subscribe,
    Unsubscribe,
)
from brain.message.event import Event
from brain.message.matching import parse_filter
from brain.message.snapshot import Snapshot, parts_of
from brain.message.wire_format import Welcome, WireFormat
from brain.systems.channels.wire_format import SERVER_MESSAGE, ChannelsFormat
from brain.web.websocket_endpoint import parse_filter_parameter
from tests.message.models import command_in, parsed_as
from tests.message.rows import (
    AT,
    HERE,
    as_json,
    deleted,
    inserted,
    published,
    reset,
    truncated,
    updated,
)
from tests.seeds.printed import printed

DOCUMENT = "2-brain-websocket-system.md"
THEN = datetime.fromtimestamp(1703001234.56, UTC)

FORMAT: WireFormat = ChannelsFormat()
parsed = partial(parsed_as, SERVER_MESSAGE)

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


def sent(event: Event) -> dict[str, Any]:
    return parsed(FORMAT.render(event))


def received(frame: Any) -> Command | None:
    return command_in(FORMAT, frame)


def test_the_greeting_is_the_printed_one() -> None:
    connection_id = UUID("0c8c5c5c-2a5a-4c7f-9d4e-1b1f3c1d2e3f")

    (text,) = FORMAT.greet(Welcome(THEN, HERE, connection_id, None))

    (expected,) = printed(DOCUMENT, "connected")
    assert list(json.loads(text)) == list(expected)
    assert parsed(text) == {**expected, "connection_id": str(connection_id)}


def test_the_heartbeat_is_the_printed_one_every_thirty_seconds() -> None:
    assert FORMAT.heartbeat_seconds == 30
    assert [parsed(FORMAT.heartbeat(THEN, HERE))] == printed(DOCUMENT, "ping")


def test_a_client_that_ignores_two_pings_is_disconnected() -> None:
    assert FORMAT.client_timeout_seconds == 60
    assert received({"type": "pong"}) is None


@pytest.mark.parametrize(
    ("command", "type"), [(Subscribe, "subscribed"), (Unsubscribe, "unsubscribed")]
)
def test_the_confirmations_are_the_printed_ones(command: type[Any], type: str) -> None:
    text = FORMAT.confirm(command("missions"), THEN)

    (expected,) = printed(DOCUMENT, type)
    assert list(parsed(text).items()) == list(expected.items())


def test_a_client_subscribes_to_a_channel_and_unsubscribes() -> None:
    assert received({"type": "subscribe", "channel": "missions"}) == Subscribe("missions")
    assert received({"type": "unsubscribe", "channel": "missions"}) == Unsubscribe("missions")


def test_a_part_of_a_channel_is_named_by_columns_in_one_order() -> None:
    where = {"status": "failed", "agent": None, "progress": 5, "paid": True, "share": 0.5}
    expected = parse_filter(where)

    assert received({"type": "subscribe", "channel": "tasks", "where": where}) == Subscribe(
        "tasks", expected
    )
    command = received({"type": "unsubscribe", "channel": "tasks", "where": where})
    assert command == Unsubscribe("tasks", expected)


def test_a_ping_of_the_client_is_answered() -> None:
    reply = received({"type": "ping"})

    assert isinstance(reply, Reply)
    assert parsed(reply.text) == {"type": "pong", "timestamp": AT.timestamp()}


def test_another_token_is_accepted_and_confirmed() -> None:
    assert received({"type": "auth", "token": "abc"}) == Reauthenticate("abc")
    assert parsed(FORMAT.confirm(Reauthenticate("abc"), THEN)) == {
        "type": "authenticated",
        "timestamp": 1703001234.56,
    }


def test_a_command_that_these_clients_do_not_have_is_not_confirmed() -> None:
    assert FORMAT.confirm(SetPresence("online"), AT) is None


def test_unknown_keys_are_ignored() -> None:
    assert received({"type": "pong", "timestamp": 1}) is None
    assert received({"type": "subscribe", "channel": "a", "id": 7}) == Subscribe("a")


@pytest.mark.parametrize(
    ("frame", "reason"),
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
        ({"type": "subscribe", "channel": "a", "where": {"b" * 1001: 1}}, "where: the name of a"),
        (
            {"type": "subscribe", "channel": "a", "where": {str(n): n for n in range(33)}},
            "where: ",
        ),
        (
            {"type": "subscribe", "channel": "a", "where": {"b" * 999: "c" * 1001}},
            "where: the value of bbb",
        ),
        (
            '{"type": "subscribe", "channel": "a", "where": {"b": 1e-9999999999999999999}}',
            "where: the exponent of a number is too large",
        ),
        ({"type": "auth"}, "token: Field required"),
        ({"type": "auth", "token": ""}, "token: "),
    ],
)
def test_a_malformed_frame_is_refused_with_a_short_reason(frame: Any, reason: str) -> None:
    command = received(frame)

    assert isinstance(command, Refuse)
    assert command.reason.startswith(reason)
    assert len(command.reason) < 200
    assert parsed(FORMAT.refuse(command.reason, THEN)) == {
        "type": "error",
        "error": command.reason,
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
def test_any_frame_is_a_command_with_a_valid_answer(frame: str) -> None:
    command = received(frame)

    match command:
        case None:
            assert json.loads(frame)["type"] == "pong"
        case Refuse():
            parsed(FORMAT.refuse(command.reason, AT))
        case Reply():
            parsed(command.text)
        case _:
            parsed(FORMAT.confirm(command, AT))
            hash(command)


@pytest.mark.parametrize("data", [{"mission_id": "mission_123", "n": [1, None]}, [1], "x", None])
def test_published_data_is_sent_as_it_is_with_its_channel(data: Any) -> None:
    message = sent(published("missions", "mission_update", data, THEN))

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
def test_rows_of_other_tables_are_sent_with_their_columns(
    event: Event, type: str, data: dict[str, Any]
) -> None:
    assert sent(event) == {
        "type": type,
        "channel": event.channel,
        "data": data,
        "timestamp": AT.timestamp(),
    }


@pytest.mark.parametrize("channel", ["tasks", "missions", "agents", "orders"])
def test_a_reset_says_what_cannot_be_sent(channel: str, caplog: pytest.LogCaptureFixture) -> None:
    message = json.loads(FORMAT.render(reset(channel)) or "")

    assert (message["type"], message["channel"]) == ("reset", channel)
    assert message["data"] == {"message": "what happened to the channel is not in the log"}
    assert caplog.records == []


@pytest.mark.parametrize(
    "event",
    [
        inserted("orders", {"id": 1}),
        inserted("tasks", TASK),
        inserted("missions", MISSION),
        inserted("agents", AGENT),
        updated("agents", AGENT, progress=1),
        published("news", "note", {}),
    ],
)
def test_a_message_names_the_columns_that_its_row_lacks(event: Event) -> None:
    assert sent(event.with_values(omitted=("scan", "notes")))["omitted"] == ["scan", "notes"]
    assert "omitted" not in sent(event)


EXACT = ["12345678901234567890.12", "1.10", "1e400", '"\\ud800"', '{"a" : [1.10, "\\u0000"]}']


@pytest.mark.parametrize("value", EXACT)
def test_values_are_sent_as_they_are_written(value: str) -> None:
    row = inserted("orders", {"id": "?"})
    mission = inserted("missions", {**MISSION, "result": "?"})
    agent = inserted("agents", {**AGENT, "health": "?"})
    beating = updated("agents", {**AGENT, "health": "?"}, progress=1)
    news = published("news", "note", {"a": "?"})

    for event, text in (
        (row, f'"data":{{"id" : {value}}}'),
        (mission, f'"result":{value}'),
        (agent, f'"health":{value}'),
        (beating, f'"health":{value}'),
        (news, f'"data":{{"a" : {value}}}'),
    ):
        assert event.data is not None
        exact = event.with_values(data=event.data.replace('"?"', value))
        assert text in (FORMAT.render(exact) or "")


@pytest.mark.parametrize("progress", EXACT[:3])
def test_progress_keeps_all_its_digits(progress: str) -> None:
    for event in (
        inserted("tasks", {**TASK, "progress": "?"}),
        inserted("agents", {**AGENT, "progress": "?"}),
        updated("agents", {**AGENT, "progress": "?"}, name="x"),
    ):
        assert event.data is not None
        exact = event.with_values(data=event.data.replace('"?"', progress))
        assert f'"progress":{progress}' in (FORMAT.render(exact) or "")


@pytest.mark.parametrize(
    "number", ["12345678901234567890.12", "1e400", "-1e-400", "9" * 5000, f"{'9' * 5000}.5"]
)
def test_a_filter_keeps_all_digits_of_a_number(number: str) -> None:
    frame = '{"type": "subscribe", "channel": "a", "where": {"n": %s}}'

    assert received(frame % number) == Subscribe("a", parse_filter({"n": Decimal(number)}))
    assert parse_filter_parameter(f'{{"n": {number}}}') == parse_filter({"n": Decimal(number)})


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
def test_a_mission_has_the_type_of_the_status_that_it_turns_to(
    old: str | None, new: str, type: str
) -> None:
    row = {**MISSION, "status": new}

    message = sent(
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

    assert sent(updated("missions", done, status="started", result=None))["data"]["result"] == {
        "status": "success"
    }
    assert sent(updated("missions", done, name="?"))["type"] == "mission_updated"
    unknown = {**done, "status": "paused"}
    assert sent(updated("missions", unknown, status="started"))["type"] == "mission_updated"
    assert sent(updated("missions", done, id="mission_1"))["type"] == "mission_updated"
    assert sent(deleted("missions", done))["type"] == "mission_deleted"


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
def test_a_task_has_the_type_of_the_status_that_it_turns_to(
    old: str | None, new: str, type: str
) -> None:
    row = {**TASK, "status": new}

    message = sent(inserted("tasks", row) if old is None else updated("tasks", row, status=old))

    assert message["type"] == type
    assert message["data"]["task_id"] == "task_abc123"
    assert message["data"]["status"] == ("in_progress" if new == "running" else new)


def test_a_task_that_keeps_its_status_is_updated_and_a_removed_one_is_deleted() -> None:
    running = {**TASK, "status": "running", "progress": 3}

    assert sent(updated("tasks", running, progress=2))["type"] == "task_updated"
    assert sent(updated("tasks", running, progress=2, status="in_progress"))["type"] == (
        "task_updated"
    )
    assert FORMAT.render(updated("tasks", running, status="in_progress")) is None
    assert sent(deleted("tasks", running))["type"] == "task_deleted"


@pytest.mark.parametrize("status", ["cancelled", None])
def test_a_task_with_an_unknown_status_cannot_be_shown(status: str | None) -> None:
    with pytest.raises(RowNotShown, match=r"^status is none of queued, in_progress, "):
        ChannelsFormat().render(inserted("tasks", {**TASK, "status": status}))


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
        (None, "asleep", "agent_heartbeat"),
        ("idle", "asleep", "agent_heartbeat"),
        ("asleep", "idle", "agent_started"),
    ],
)
def test_an_agent_has_the_type_of_its_shown_status(old: str | None, new: str, type: str) -> None:
    row = {**AGENT, "status": new}

    message = sent(inserted("agents", row) if old is None else updated("agents", row, status=old))

    assert message["type"] == type
    assert message["data"]["agent_id"] == "ops_agent"


def test_an_agent_that_starts_is_sent_with_all_columns() -> None:
    assert sent(inserted("agents", AGENT))["data"] == {
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
    data = sent(updated("agents", AGENT, heartbeat_at=None))["data"]

    assert list(data) == ["agent_id", "status"]
    assert "agent_id" not in data["status"]
    assert data["status"]["health"] == {"health": "good", "tasks": 5}
    assert data["status"]["heartbeat_at"] == "2026-02-06T01:30:00.000Z"


def test_another_error_of_an_agent_is_an_error() -> None:
    failed = {**AGENT, "status": "error", "error": "b"}

    message = sent(updated("agents", failed, error="a"))

    assert (message["type"], message["data"]["error"]) == ("agent_error", "b")
    assert sent(updated("agents", failed, progress=1))["type"] == "agent_heartbeat"


def test_an_agent_that_is_deleted_or_renamed_has_stopped_under_its_id() -> None:
    stopped, started = (
        sent(deleted("agents", AGENT)),
        sent(updated("agents", {**AGENT, "id": "other"}, id="ops_agent")),
    )

    assert (stopped["type"], stopped["data"]["agent_id"]) == ("agent_stopped", "ops_agent")
    assert (started["type"], started["data"]["agent_id"]) == ("agent_started", "other")


def test_a_watch_may_name_the_type_of_its_messages() -> None:
    named = updated("agents", AGENT, progress=1).with_values(type="moved")

    assert (sent(named)["type"], sent(named)["data"]) == ("moved", AGENT)


def test_these_clients_are_sent_neither_resets_nor_snapshots() -> None:
    assert FORMAT.reset("reason", AT, HERE) is None
    (part,) = parts_of(Snapshot({"tasks": [as_json(TASK)]}, HERE))
    assert FORMAT.render_part(part, AT) is None
