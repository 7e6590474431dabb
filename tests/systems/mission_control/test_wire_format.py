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
from brain.message.commands import Reauthenticate, Refuse, Subscribe
from brain.message.event import Event
from brain.message.wire_format import Welcome, WireFormat
from brain.systems.mission_control.wire_format import SERVER_MESSAGE, MissionControlFormat
from tests.message.models import parsed_as
from tests.message.rows import AT, HERE, deleted, inserted, published, reset, truncated, updated
from tests.seeds.printed import printed

DOCUMENT = "4-mission-control.md"
THEN = datetime.fromtimestamp(1707163200, UTC)

FORMAT: WireFormat = MissionControlFormat()
parsed = partial(parsed_as, SERVER_MESSAGE)

AGENT: dict[str, Any] = {
    "id": "agent-abc-123",
    "name": None,
    "status": "working",
    "current_task": None,
    "progress": None,
    "error": None,
    "health": {},
    "heartbeat_at": None,
}
SESSION = {
    "id": "session-xyz-789",
    "agent_id": "agent-abc-123",
    "last_message": "Processing user request...",
}


def sent(event: Event) -> dict[str, Any]:
    return parsed(FORMAT.render(event))


def shown(event: Event) -> tuple[str, str] | None:
    """Return the agent and the status in the message about an event."""
    text = FORMAT.render(event)
    if text is None:
        return None
    message = parsed(text)
    assert message["type"] == "agent:status"
    return message["payload"]["agentId"], message["payload"]["status"]


def test_an_agent_that_comes_online_is_sent_as_printed() -> None:
    message = sent(updated("agents", AGENT, THEN, status="stopped"))

    (expected,) = printed(DOCUMENT, "agent:status")
    assert message == expected
    assert [list(message), list(message["payload"])] == [list(expected), list(expected["payload"])]


def test_activity_in_a_session_is_sent_as_printed() -> None:
    message = sent(updated("sessions", SESSION, THEN, last_message="Hello"))

    (expected,) = printed(DOCUMENT, "session:activity")
    assert message == expected
    assert [list(message), list(message["payload"])] == [list(expected), list(expected["payload"])]


def test_the_heartbeat_is_the_printed_one_every_thirty_seconds() -> None:
    assert FORMAT.heartbeat_seconds == 30
    assert [parsed(FORMAT.heartbeat(THEN, HERE))] == printed(DOCUMENT, "heartbeat")


def test_these_clients_are_not_greeted_and_may_be_silent() -> None:
    assert list(FORMAT.greet(Welcome(AT, HERE, uuid4(), "ann"))) == []
    assert FORMAT.client_timeout_seconds is None


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (None, "idle", "online"),
        (None, "offline", "offline"),
        (None, "error", "error"),
        ("offline", "online", "online"),
        ("working", "stopped", "offline"),
        ("working", "error", "error"),
        ("error", "working", "online"),
        ("idle", "working", None),
        ("online", "idle", None),
        ("stopped", "offline", None),
    ],
)
def test_an_agent_is_sent_when_its_shown_status_changes(
    old: str | None, new: str, expected: str | None
) -> None:
    row = {**AGENT, "status": new}

    sent_as = shown(inserted("agents", row) if old is None else updated("agents", row, status=old))

    assert sent_as == (None if expected is None else ("agent-abc-123", expected))


def test_other_changes_of_an_agent_are_not_sent() -> None:
    assert shown(updated("agents", AGENT, progress=5, current_task="x", heartbeat_at="?")) is None


def test_an_agent_that_is_deleted_or_renamed_is_offline_under_its_id() -> None:
    assert shown(deleted("agents", AGENT)) == ("agent-abc-123", "offline")
    assert shown(updated("agents", {**AGENT, "id": "b"}, id="agent-abc-123")) == ("b", "online")


def test_a_new_session_is_activity_and_so_is_every_new_message() -> None:
    assert sent(inserted("sessions", SESSION))["type"] == "session:activity"
    assert sent(inserted("sessions", {**SESSION, "last_message": None}))["payload"] == {
        "agentId": "agent-abc-123",
        "sessionId": "session-xyz-789",
        "lastMessage": "",
        "timestamp": 1770341415250,
    }
    assert FORMAT.render(updated("sessions", SESSION, agent_id="another")) is None
    assert FORMAT.render(deleted("sessions", SESSION)) is None


@pytest.mark.parametrize(
    "event",
    [
        inserted("tasks", {"id": "a", "status": "queued"}),
        reset("tasks"),
        inserted("messages", {"id": "a"}),
        truncated("agents"),
        truncated("sessions"),
        reset("agents"),
        reset("sessions"),
        published("agents", "agent_started", {"agent_id": "a"}),
        published("agents", "session:activity", {}),
        published("news", "agent:status", {}),
        published("agents", "agent:status", "online"),
    ],
)
def test_no_other_event_is_sent(event: Event, caplog: pytest.LogCaptureFixture) -> None:
    assert FORMAT.render(event) is None
    assert caplog.records == []


def test_a_session_without_an_id_cannot_be_shown() -> None:
    with pytest.raises(RowNotShown, match=r"^sessionId: Input should be a valid string$"):
        MissionControlFormat().render(inserted("sessions", {**SESSION, "id": [1]}))


@pytest.mark.parametrize("value", [None, {"text": "hello"}, [1], True, "\ud800"])
def test_a_column_of_another_type_hides_no_activity_of_a_session(value: Any) -> None:
    message = sent(inserted("sessions", {**SESSION, "agent_id": value, "last_message": value}))

    assert (message["payload"]["agentId"], message["payload"]["lastMessage"]) == ("", "")


def test_a_last_message_that_is_omitted_is_empty_and_named() -> None:
    row = {**SESSION, "last_message": None}
    message = sent(updated("sessions", row).with_values(omitted=("last_message",)))

    assert message["payload"]["lastMessage"] == ""
    assert message["omitted"] == ["last_message"]


@pytest.mark.parametrize("status", ["asleep", None])
def test_an_agent_with_an_unknown_status_cannot_be_shown(status: str | None) -> None:
    wire_format = MissionControlFormat()
    row = {**AGENT, "status": status}

    with pytest.raises(RowNotShown, match=r"^status: Input should be 'online', 'offline' or"):
        wire_format.render(inserted("agents", row))
    assert wire_format.render(updated("agents", row, progress=5)) is None
    back = wire_format.render(updated("agents", AGENT, status=status))
    assert back is not None and parsed(back)["payload"]["status"] == "online"


def test_a_message_published_for_these_clients_gets_a_timestamp_if_it_has_none() -> None:
    for type, channel in (("agent:status", "agents"), ("session:activity", "sessions")):
        (expected,) = printed(DOCUMENT, type)
        payload = dict(expected["payload"])

        assert sent(published(channel, type, payload)) == expected
        del payload["timestamp"]
        assert sent(published(channel, type, payload, THEN)) == expected


@pytest.mark.parametrize(
    "value", ["12345678901234567890.12", "1.10", "1e400", '"\\ud800"', '{"a" : [1.10, "\\u0000"]}']
)
def test_a_published_message_is_sent_as_it_is_written(value: str) -> None:
    event = published("agents", "agent:status", {"agentId": "a", "extra": "?"})
    assert event.data is not None

    text = FORMAT.render(event.with_values(data=event.data.replace('"?"', value))) or ""

    assert f'"extra":{value}' in text


def test_these_clients_have_no_filters_that_a_row_could_leave() -> None:
    assert FORMAT.render_leaving(updated("agents", AGENT, status="error")) is None


def test_another_token_is_accepted() -> None:
    assert FORMAT.receive('{"type": "auth", "token": "abc"}', AT, lambda: HERE) == (
        Reauthenticate("abc"),
    )


@given(st.text() | st.dictionaries(st.text(), st.text()).map(json.dumps))
def test_any_other_frame_is_refused(frame: str) -> None:
    assert FORMAT.receive(frame, AT, lambda: HERE) == (Refuse("Invalid message format"),)


@pytest.mark.parametrize("frame", ['{"type": "auth"}', '{"type": "auth", "token": ""}', "[" * 9999])
def test_a_frame_without_a_token_is_refused(frame: str) -> None:
    assert FORMAT.receive(frame, AT, lambda: HERE) == (Refuse("Invalid message format"),)


def test_these_clients_are_sent_no_confirmation_and_no_reset() -> None:
    assert FORMAT.confirm(Subscribe("agents"), AT) is None
    assert FORMAT.confirm(Reauthenticate("abc"), AT) is None
    assert FORMAT.reset("reason", AT, HERE) is None


def test_a_refusal_is_an_error_with_its_reason() -> None:
    message = parsed(FORMAT.refuse("reason", THEN))
    assert (message["type"], list(message["payload"])) == ("error", ["error", "timestamp"])
    assert message["payload"]["error"] == "reason"
