"""The clients that Cecelia Brain's document prints, verbatim."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.end_to_end.brain import becomes, ended
from tests.seeds.comparing import is_as_printed
from tests.seeds.conftest import OwnBrain, Served
from tests.seeds.front_end import REACT, FrontEnd
from tests.seeds.packages import Packages
from tests.seeds.programs import DIRECTLY, wscat
from tests.seeds.snippets import Document

DOCUMENT = Document("1-cecelia-brain.md", "localhost:5221")

PSQL = "psql -h localhost -U cecelia cecelia"

MOUNTED = """
function Mounted() { window.hook = useTaskUpdates(); }
root.render(<Mounted />);
"""

START = """
INSERT INTO tasks (id, agent, status, progress) VALUES ('task-123', 'dev', 'running', 5)
"""
COMPLETE = "UPDATE tasks SET status = 'completed', progress = 11 WHERE id = 'task-123'"
RESTART = """
UPDATE tasks SET status = 'running', progress = 7, completed_at = NULL WHERE id = 'task-123'
"""
FAIL = """
UPDATE tasks SET status = 'failed', error = 'Build failed: TypeScript compilation error'
 WHERE id = 'task-123'
"""

CONNECTED = DOCUMENT.message("1. Connected (Server → Client)")
UPDATE = DOCUMENT.message("2. Run Update (Server → Client)")
COMPLETED = DOCUMENT.message("3. Run Complete (Server → Client)")
FAILED = DOCUMENT.message("4. Run Failed (Server → Client)")
HELLO = DOCUMENT.message("5. Echo (Bidirectional)", 1)
ECHO = DOCUMENT.message("5. Echo (Bidirectional)", 2)


async def test_the_example_for_browsers_logs_every_message_as_printed(
    front_end: FrontEnd, served: Served, sql: asyncpg.Connection
) -> None:
    await front_end.run(DOCUMENT.snippet("Connection Example", at=served.address))
    assert await front_end.next_logged() == ["Connected to Brain WebSocket"]

    async def is_received(printed: dict[str, Any]) -> None:
        assert is_as_printed(await front_end.next_message(), printed)
        logged, message = await front_end.next_logged()
        assert logged == "Received:"
        assert is_as_printed(message, printed)

    await is_received(CONNECTED)
    await sql.execute(START)
    await is_received(UPDATE)
    await sql.execute(COMPLETE)
    await is_received(COMPLETED)
    await sql.execute(RESTART)
    await front_end.next_logged()
    await front_end.next_message()
    await sql.execute(FAIL)
    await is_received(FAILED)
    await front_end.run(f"ws.send(`{json.dumps(HELLO)}`)")
    await is_received(ECHO)

    await front_end.run("ws.close()")
    assert await front_end.next_logged() == ["WebSocket connection closed"]


async def test_the_example_for_browsers_logs_that_no_server_is_there(front_end: FrontEnd) -> None:
    await front_end.run(DOCUMENT.snippet("Connection Example", at="localhost:9"))
    assert (await front_end.next_logged())[0] == "WebSocket error:"
    assert await front_end.next_logged() == ["WebSocket connection closed"]


async def test_the_example_for_browsers_logs_that_a_page_of_another_origin_is_refused(
    front_end: FrontEnd, served: Served, origin: str
) -> None:
    await front_end.page.goto(origin.replace("localhost", "127.0.0.1"))
    await front_end.run(DOCUMENT.snippet("Connection Example", at=served.address))
    assert (await front_end.next_logged())[0] == "WebSocket error:"
    assert await front_end.next_logged() == ["WebSocket connection closed"]


async def test_wscat_gets_messages_and_answers_as_printed(
    tmp_path: Path, packages: Packages, served: Served, sql: asyncpg.Connection
) -> None:
    session = DOCUMENT.snippet("Connection Example", 2, at=served.address)
    async with wscat(tmp_path, packages, session) as client:
        assert is_as_printed(await client.message(), CONNECTED)
        await sql.execute(START)
        assert is_as_printed(await client.message(), UPDATE)
        client.type(json.dumps(HELLO))
        assert is_as_printed(await client.message(), ECHO)


async def test_statements_typed_into_psql_are_seen_in_wscat(
    tmp_path: Path, packages: Packages, served: Served, psql: str, sql: asyncpg.Connection
) -> None:
    session = DOCUMENT.snippet(
        "Manual Test with wscat",
        at=served.address,
        fill_in={PSQL: f"{psql} '{served.database}'", "<task-id>": "task-123"},
    )
    first, second, _ = session.split("# Terminal ")[1:]
    async with wscat(tmp_path, packages, first) as client:
        assert (await client.message())["type"] == "connected"
        await sql.execute("INSERT INTO tasks (id, agent, progress) VALUES ('task-123', 'dev', 5)")
        assert (await client.message())["data"]["status"] == "queued"
        typed = await ended(("bash", "-c", "#" + second))
        assert (typed.stdout, typed.stderr) == ("UPDATE 1\n", "")
        assert is_as_printed(await client.message(), UPDATE)


@pytest.mark.usefixtures("curl")
async def test_the_status_is_as_printed(front_end: FrontEnd, served: Served) -> None:
    printed = DOCUMENT.message("HTTP Status Endpoint", 2)
    command = DOCUMENT.snippet("HTTP Status Endpoint", at=served.address)
    await front_end.run(DOCUMENT.snippet("Connection Example", at=served.address))
    await front_end.next_message()
    async with served.brain.client():
        answer: dict[str, Any] = {}
        while answer != printed:  # until the clients of other tests are gone
            answer = json.loads((await ended(("bash", "-c", command), DIRECTLY)).stdout)
            assert is_as_printed(answer | {"websocket": printed["websocket"]}, printed)
        assert is_as_printed(answer, printed)


async def test_the_react_hook_holds_the_newest_of_every_task(
    front_end: FrontEnd, packages: Packages, served: Served, sql: asyncpg.Connection
) -> None:
    hook = DOCUMENT.snippet("Frontend React Example", at=served.address)
    await front_end.mount(packages, REACT, hook, MOUNTED)
    assert (await front_end.next_message())["type"] == "connected"
    await front_end.holds("hook.length === 0")

    await sql.execute(START)
    await front_end.holds("hook.length === 1")
    assert is_as_printed(await front_end.page.evaluate("hook[0]"), UPDATE["data"])
    await sql.execute("INSERT INTO tasks (id, agent) VALUES ('task-124', 'dev')")
    await sql.execute(COMPLETE)
    await front_end.holds("hook.length === 2 && hook[0].status === 'completed'")
    assert is_as_printed(await front_end.page.evaluate("hook[0]"), COMPLETED["data"])

    await front_end.page.evaluate("unmount()")
    await becomes(lambda: front_end.sockets[0].is_closed())


async def test_the_example_with_retries_is_back_after_a_restart(
    front_end: FrontEnd, own_brain: OwnBrain, connection: asyncpg.Connection
) -> None:
    async with own_brain() as first:
        at = f"localhost:{first.port}"
        await front_end.run(DOCUMENT.snippet("Server Restart", at=at))
        assert is_as_printed(await front_end.next_message(), CONNECTED)
    assert await front_end.next_logged() == ["Reconnecting... (1/5)"]
    async with own_brain(first.port):
        assert is_as_printed(await front_end.next_message(), CONNECTED)
        await connection.execute(START)
        assert is_as_printed(await front_end.next_message(), UPDATE)


@pytest.mark.usefixtures("curl")
async def test_the_troubleshooting_commands_answer(
    served: Served, psql: str, sql: asyncpg.Connection
) -> None:
    await sql.execute("INSERT INTO tasks (id) VALUES ('task-123')")

    async def answer(heading: str, number: int = 1) -> str:
        code = DOCUMENT.code(heading, number).replace("localhost:5221", served.address)
        code = code.replace(PSQL, f"{psql} '{served.database}'").replace("<task-id>", "task-123")
        done = await ended(("bash", "-ec", code), DIRECTLY)
        assert done.status == 0, done.stderr
        return done.stdout

    assert '"websocket": "/ws"' in await answer("Connection Refused")
    assert "task-123 | queued" in await answer("No Messages Received")
    assert await answer("No Messages Received", 2) == "UPDATE 1\n"
    assert '"success": true' in await answer("No Messages Received", 3)
