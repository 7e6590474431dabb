"""Messages about the tables that several systems share."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from brain.database.migrations import migrate
from brain.database.schema_files import core_schema
from brain.message.channel_schema import ChannelSchemas
from brain.message.event import Event
from brain.message.wire_format import WireFormat
from brain.systems.channels.wire_format import ChannelsFormat
from brain.systems.cloud_agents.wire_format import CloudAgentsFormat
from brain.systems.mission_control.wire_format import MissionControlFormat
from brain.systems.shared_tables.tasks.run_messages import RunSchema
from tests.database.changes import logged_events
from tests.postgres import new_database
from tests.schemas import every_schema

FORMATS: tuple[WireFormat, ...] = (
    ChannelsFormat(),
    MissionControlFormat(),
    CloudAgentsFormat(ChannelSchemas([RunSchema()])),
)
TABLES = ["agents", "messages", "missions", "sessions"]


@pytest.fixture
async def empty(postgres: str) -> AsyncIterator[str]:
    """The URL of a database that has not been migrated."""
    async with new_database(postgres) as url:
        yield url


def types(event: Event) -> list[str | None]:
    """Return the type of the message about an event in each of the formats."""
    texts = [wire_format.render(event) for wire_format in FORMATS]
    return [None if text is None else json.loads(text)["type"] for text in texts]


async def sent(database: str, connection: asyncpg.Connection, *statements: str) -> list[Any]:
    """Return the types of the messages about `statements`, each a transaction of its own."""
    return [types(event) for event in await logged_events(database, connection, *statements)]


async def test_an_agent_is_sent_in_the_words_of_each_format(
    database: str, connection: asyncpg.Connection
) -> None:
    assert await sent(
        database,
        connection,
        "INSERT INTO agents (id) VALUES ('ops')",
        "UPDATE agents SET status = 'working', current_task = 'deploy', progress = 0",
        "UPDATE agents SET progress = 50",
        """UPDATE agents SET heartbeat_at = now(), health = '{"health": "good", "tasks": 5}'""",
        "UPDATE agents SET updated_at = now()",
        "UPDATE agents SET status = 'error', error = 'Task execution failed'",
        "UPDATE agents SET status = 'stopped'",
        "DELETE FROM agents",
    ) == [
        ["agent_started", "agent:status", "agent_status"],
        ["agent_heartbeat", None, "agent_status"],
        ["agent_heartbeat", None, "agent_status"],
        ["agent_heartbeat", None, None],
        ["agent_error", "agent:status", "agent_status"],
        ["agent_stopped", "agent:status", None],
        ["agent_stopped", "agent:status", "agent_status"],
    ]


async def test_an_agent_that_gets_another_id_is_sent_as_gone_and_as_new(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute("INSERT INTO agents (id, status) VALUES ('a', 'working')")

    gone, there = await logged_events(database, connection, "UPDATE agents SET id = 'b'")

    assert types(gone) == ["agent_stopped", "agent:status", "agent_status"]
    assert types(there) == ["agent_started", "agent:status", "agent_status"]
    texts = [MissionControlFormat().render(event) or "" for event in (gone, there)]
    assert [(p["agentId"], p["status"]) for p in (json.loads(t)["payload"] for t in texts)] == [
        ("a", "offline"),
        ("b", "online"),
    ]


async def test_a_mission_is_sent_from_its_beginning_to_its_end(
    database: str, connection: asyncpg.Connection
) -> None:
    assert await sent(
        database,
        connection,
        "INSERT INTO missions (id, name, priority) VALUES ('m', 'Deploy Application', 'high')",
        "UPDATE missions SET status = 'started'",
        "UPDATE missions SET priority = 'low'",
        """UPDATE missions SET status = 'completed', result = '{"status": "success"}'""",
        "UPDATE missions SET status = 'failed', error = 'Deployment failed: timeout'",
        "DELETE FROM missions",
    ) == [
        ["mission_created", None, "missions_inserted"],
        ["mission_started", None, "missions_updated"],
        ["mission_updated", None, "missions_updated"],
        ["mission_completed", None, "missions_updated"],
        ["mission_failed", None, "missions_updated"],
        ["mission_deleted", None, "missions_deleted"],
    ]


async def test_a_task_is_sent_in_the_words_of_each_format(
    database: str, connection: asyncpg.Connection
) -> None:
    assert await sent(
        database,
        connection,
        "INSERT INTO tasks (id) VALUES ('t')",
        "UPDATE tasks SET status = 'running'",
        "UPDATE tasks SET progress = 5",
        "UPDATE tasks SET title = 'in no message'",
        "UPDATE tasks SET status = 'completed'",
        "UPDATE tasks SET status = 'failed'",
    ) == [
        ["task_queued", None, "run_update"],
        ["task_started", None, "run_update"],
        ["task_updated", None, "run_update"],
        ["task_completed", None, "run_complete"],
        ["task_failed", None, "run_failed"],
    ]


async def test_a_new_last_message_of_a_session_is_activity(
    database: str, connection: asyncpg.Connection
) -> None:
    assert await sent(
        database,
        connection,
        "INSERT INTO sessions (id, agent_id) VALUES ('s', 'ops')",
        "UPDATE sessions SET last_message = 'User said: Hello'",
        "UPDATE sessions SET agent_id = 'dev'",
    ) == [
        ["sessions_inserted", "session:activity", "sessions_inserted"],
        ["sessions_updated", "session:activity", "sessions_updated"],
        ["sessions_updated", None, "sessions_updated"],
    ]


@pytest.mark.postgres_versions
async def test_a_row_of_messages_is_a_chat_message(
    database: str, connection: asyncpg.Connection
) -> None:
    (event,) = await logged_events(
        database,
        connection,
        "INSERT INTO messages VALUES ('msg-456', 'conv-123', 'dev', 'Hello', '2026-02-06 01:30Z')",
    )

    assert types(event) == ["messages_inserted", None, "chat_message"]
    assert json.loads(FORMATS[2].render(event) or "")["data"] == {
        "conversationId": "conv-123",
        "messageId": "msg-456",
        "content": "Hello",
        "sender": "dev",
        "timestamp": "2026-02-06T01:30:00.000Z",
    }


DIGITS = ("12345678901234567890.12", "1.10", "1" + "0" * 400)


@pytest.mark.parametrize("digits", DIGITS)
async def test_numbers_keep_the_digits_that_postgresql_has(
    database: str, connection: asyncpg.Connection, digits: str
) -> None:
    for table in ("tasks", "agents"):
        await connection.execute(
            f"ALTER TABLE {table} DROP CONSTRAINT {table}_progress_check,"
            " ALTER progress TYPE numeric"
        )
    task, agent, mission, beating, status, note = await logged_events(
        database,
        connection,
        f"INSERT INTO tasks (id, progress) VALUES ('t', {digits})",
        f"INSERT INTO agents (id, progress) VALUES ('a', {digits})",
        f"""INSERT INTO missions (id, result) VALUES ('m', '{{"n": {digits}}}')""",
        f"""UPDATE agents SET health = '{{"n": {digits}}}'""",
        f"""SELECT brain.publish('agents', 'agent:status', '{{"agentId": "a", "n": {digits}}}')""",
        f"""SELECT brain.publish('news', 'note', '[{digits}]')""",
    )
    channels, mission_control, cloud_agents = FORMATS

    for wire_format, event, text in (
        (channels, task, f'"progress":{digits},'),
        (cloud_agents, task, f'"progress":{digits},'),
        (channels, agent, f'"progress":{digits},'),
        (cloud_agents, agent, f'"progress":{digits}}}'),
        (channels, mission, f'"result":{{"n": {digits}}}'),
        (cloud_agents, mission, f'{{"n": {digits}}}'),
        (channels, beating, f'"health":{{"n": {digits}}}'),
        (mission_control, status, f'"n":{digits}'),
        (channels, note, f'"data":[{digits}]'),
        (cloud_agents, note, f'"data":[{digits}]'),
    ):
        assert text in (wire_format.render(event) or "")


async def test_a_chat_message_that_is_too_large_is_sent_without_its_content(
    database: str, connection: asyncpg.Connection
) -> None:
    (event,) = await logged_events(
        database,
        connection,
        "INSERT INTO messages (id, conversation_id, sender, content)"
        " SELECT 'm', 'c', 'dev', string_agg(md5(n::text), '') FROM generate_series(1, 20000) n",
    )

    message = json.loads(FORMATS[2].render(event) or "")
    assert (message["data"]["content"], message["omitted"]) == ("", ["content"])


@pytest.mark.postgres_versions
async def test_columns_have_defaults(connection: asyncpg.Connection) -> None:
    await connection.execute(
        """
        INSERT INTO agents DEFAULT VALUES;
        INSERT INTO missions DEFAULT VALUES;
        INSERT INTO sessions (agent_id) VALUES ('a');
        INSERT INTO messages (conversation_id, sender, content) VALUES ('c', 's', 'hello');
        """
    )

    for table in TABLES:
        assert await connection.fetchval(f"SELECT length(id) FROM {table}") == 36
    assert await connection.fetchval("SELECT status FROM agents") == "idle"
    assert await connection.fetchval("SELECT status FROM missions") == "created"


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("agents", "(id) VALUES ('a')"),
        ("missions", "(id) VALUES ('a')"),
        ("sessions", "(id, agent_id) VALUES ('a', 'b')"),
    ],
)
async def test_an_update_sets_updated_at_unless_the_writer_does(
    connection: asyncpg.Connection, table: str, row: str
) -> None:
    await connection.execute(f"INSERT INTO {table} {row}")
    await connection.execute(f"UPDATE {table} SET updated_at = '2020-01-01 00:00+00'")

    assert await connection.fetchval(f"SELECT updated_at = '2020-01-01 00:00+00' FROM {table}")

    await connection.execute(f"UPDATE {table} SET id = 'b'")

    assert await connection.fetchval(
        f"SELECT updated_at > now() - interval '1 minute' FROM {table}"
    )


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("INSERT INTO agents (status) VALUES ('asleep')", "agents_status_check"),
        ("INSERT INTO agents (progress) VALUES (-1)", "agents_progress_check"),
        ("INSERT INTO agents (progress) VALUES ('NaN')", "agents_progress_check"),
        ("INSERT INTO missions (status) VALUES ('running')", "missions_status_check"),
    ],
)
async def test_a_value_that_no_format_knows_is_refused(
    connection: asyncpg.Connection, statement: str, constraint: str
) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match=constraint):
        await connection.execute(statement)


@pytest.mark.postgres_versions
async def test_tables_that_fit_are_kept_and_watched(empty: str) -> None:
    connection = await asyncpg.connect(empty)
    await connection.execute(
        """
        CREATE TABLE agents (
            id int PRIMARY KEY, name text, status text, current_task text, progress int, error text,
            health text, heartbeat_at timestamp, updated_at timestamp, of_their_own text);
        INSERT INTO agents (id) VALUES (17);
        """
    )

    await migrate(empty, every_schema())

    (event,) = await logged_events(empty, connection, "UPDATE agents SET status = 'working'")
    assert types(event) == ["agent_started", "agent:status", "agent_status"]
    assert json.loads(FORMATS[1].render(event) or "")["payload"]["agentId"] == "17"
    assert event.row is not None
    assert "of_their_own" not in event.row
    assert await connection.fetchval("SELECT updated_at IS NULL FROM agents")
    await connection.close()


OTHER_TYPES = {
    "progress text": "'50%'",
    "progress numeric": "'NaN'",
    "progress boolean": "true",
    "progress jsonb": "'[7]'",
    "name jsonb, current_task jsonb, error jsonb": """'{}', '[1]', '{"text": "no"}'""",
    "name text[], current_task boolean, error json": r"""'{a}', false, '"\ud800"'""",
    "heartbeat_at text, health text": "'never', '50%'",
    "heartbeat_at boolean, health bytea": "true, 'x'",
}


@pytest.mark.parametrize(("columns", "values"), OTHER_TYPES.items())
async def test_columns_of_other_types_hide_no_change_of_an_agent(
    empty: str, columns: str, values: str
) -> None:
    connection = await asyncpg.connect(empty)
    await connection.execute(f"CREATE TABLE agents (id int PRIMARY KEY, status text, {columns})")
    await migrate(empty, every_schema())

    assert await sent(
        empty,
        connection,
        f"INSERT INTO agents VALUES (17, 'working', {values})",
        "UPDATE agents SET status = 'error'",
    ) == [
        ["agent_started", "agent:status", "agent_status"],
        ["agent_error", "agent:status", "agent_status"],
    ]
    await connection.close()


@pytest.mark.parametrize("type", ["jsonb", "json", "boolean", "text[]"])
async def test_columns_of_other_types_hide_no_mission_no_session_and_no_message(
    empty: str, type: str
) -> None:
    value = {"boolean": "true", "text[]": "'{a}'"}.get(type, """'{"a": 1}'""")
    connection = await asyncpg.connect(empty)
    await connection.execute(
        f"""
        CREATE TABLE missions (id int PRIMARY KEY, status text, name {type}, priority {type},
            result {type}, error {type});
        CREATE TABLE sessions (id int PRIMARY KEY, agent_id {type}, last_message {type});
        CREATE TABLE messages (id int PRIMARY KEY, conversation_id {type}, sender {type},
            content {type}, created_at {type});
        """
    )
    await migrate(empty, every_schema())

    assert await sent(
        empty,
        connection,
        f"INSERT INTO missions VALUES (1, 'completed', {', '.join([value] * 4)})",
        f"INSERT INTO sessions VALUES (1, {value}, {value})",
        f"INSERT INTO messages VALUES (1, {', '.join([value] * 4)})",
    ) == [
        ["mission_completed", None, "missions_inserted"],
        ["sessions_inserted", "session:activity", "sessions_inserted"],
        ["messages_inserted", None, "chat_message"],
    ]
    await connection.close()


@pytest.mark.postgres_versions
async def test_a_table_of_that_name_which_is_another_one_is_left_alone(empty: str) -> None:
    connection = await asyncpg.connect(empty)
    await connection.execute("CREATE TABLE messages (id int PRIMARY KEY, content text)")
    await migrate(empty, every_schema())

    watched = await connection.fetchval("SELECT array_agg(channel) FROM brain.watches")
    triggers = await connection.fetchval(
        "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'messages'::regclass"
    )
    await connection.close()
    assert {"agents", "sessions", "missions"} <= set(watched)
    assert "messages" not in watched
    assert triggers == 0


async def test_a_table_that_is_watched_already_keeps_its_watch(empty: str) -> None:
    await migrate(empty, [core_schema()])
    connection = await asyncpg.connect(empty)
    await connection.execute(
        """
        CREATE TABLE missions (
            id int PRIMARY KEY, name text, priority text, status text, result jsonb, error text,
            updated_at timestamptz);
        SELECT brain.watch('missions', 'ours', '{id,name}');
        """
    )

    await migrate(empty, every_schema())

    (event,) = await logged_events(
        empty, connection, "INSERT INTO missions VALUES (1, 'a', 'secret')"
    )
    assert (event.operation.value, event.key) == ("I", "[1]")
    assert event.data == '{"id" : 1, "name" : "a"}'
    assert await connection.fetchval(
        "SELECT channel FROM brain.watched WHERE relation = 'missions'::regclass"
    ) == ("ours")
    await connection.close()


@pytest.mark.postgres_versions
async def test_the_watches_have_no_problems(connection: asyncpg.Connection) -> None:
    rows = await connection.fetch("SELECT channel, problems FROM brain.watches")

    assert {*TABLES, "tasks"} <= {row["channel"] for row in rows}
    assert not [row for row in rows if row["problems"]]
