"""`brain listen` in a pipe, with a Brain that runs as its users run it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import jwt
import pytest

from tests.end_to_end.brain import (
    PATIENCE_SECONDS,
    RunningBrain,
    brain,
    clean_environment,
    has_sent_everything,
    running_brain,
)

ORDERS = """
    CREATE TABLE orders (id int PRIMARY KEY, status text, total numeric, paid boolean);
    SELECT brain.watch('orders', 'orders', '{id,status,total,paid}');
    CREATE TABLE news (id int PRIMARY KEY);
    SELECT brain.watch('news', 'news', '{id}');
"""
INSERT = "INSERT INTO orders SELECT n, 'open', n FROM generate_series($1::int, $2) n"


class Listening:
    """A `brain listen` that runs."""

    def __init__(self, process: asyncio.subprocess.Process, errors: Path) -> None:
        self.process = process
        self._errors = errors

    @property
    def stderr(self) -> str:
        return self._errors.read_text()

    async def text(self) -> str:
        """Return the next line."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            line = await self.process.stdout.readline()
        assert line.endswith(b"\n"), (line, self.stderr)
        return line.decode().removesuffix("\n")

    async def line(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(await self.text())
        return parsed

    async def lines(self, count: int) -> list[dict[str, Any]]:
        return [await self.line() for _ in range(count)]

    async def until(self, op: str) -> list[dict[str, Any]]:
        lines = [await self.line()]
        while lines[-1]["op"] != op:
            lines.append(await self.line())
        return lines

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.process.wait()


@asynccontextmanager
async def listening(
    folder: Path, brain: RunningBrain, *arguments: str, **environment: str
) -> AsyncIterator[Listening]:
    """Run `brain listen` with its output in a pipe."""
    async with listening_at(folder, brain.http, *arguments, **environment) as client:
        yield client


@asynccontextmanager
async def listening_at(
    folder: Path, url: str, *arguments: str, **environment: str
) -> AsyncIterator[Listening]:
    errors = folder / "listen.err"
    with errors.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "brain", "listen", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=file,
            limit=1 << 24,
            env={**clean_environment(), "BRAIN_URL": url, **environment},
        )
    try:
        yield Listening(process, errors)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def keys(lines: list[dict[str, Any]]) -> list[int]:
    return [line["key"][0] for line in lines if "key" in line]


@pytest.fixture
def database(shared_database: str) -> str:
    return shared_database


@pytest.fixture
async def server(shared_brain: RunningBrain, connection: asyncpg.Connection) -> RunningBrain:
    await connection.execute(ORDERS)
    return shared_brain


async def test_the_line_of_the_documentation_prints_changes_rows_and_what_happens(
    tmp_path: Path, server: RunningBrain, database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(INSERT, 8, 12)
    await has_sent_everything(server, database)
    await connection.execute("UPDATE brain.ticks SET at = at - interval '1 hour'")
    await connection.execute("UPDATE orders SET status = 'paid' WHERE id = 12")

    options = ("--where", "status=open", "--where", "total>=10", "--snapshot", "--since", "10m")
    async with listening(tmp_path, server, "orders", *options, "--json") as client:
        lines = await client.until("live")
        assert [(line["op"], line.get("key")) for line in lines] == [
            ("leave", [12]),
            ("snapshot", [10]),
            ("snapshot", [11]),
            ("snapshot-end", None),
            ("live", None),
        ]
        await connection.execute(INSERT, 13, 13)
        line = await client.line()
    assert {name: line[name] for name in ("op", "channel", "key", "last")} == {
        "op": "insert",
        "channel": "orders",
        "key": [13],
        "last": True,
    }
    assert line["row"] == {"id": 13, "status": "open", "total": 13, "paid": None}
    assert {"at", "cursor", "txid"} < line.keys()
    assert client.stderr == ""


async def test_every_digit_of_a_number_is_printed_as_it_was_sent(
    tmp_path: Path, server: RunningBrain, connection: asyncpg.Connection
) -> None:
    numbers = ["1.50", "12345678901234567890.1234567890", "100000000000000000000000", "0.0000001"]
    async with listening(tmp_path, server, "orders", "--snapshot") as client:
        await client.until("live")
        for id, number in enumerate(numbers):
            await connection.execute(f"INSERT INTO orders VALUES ({id}, 'open', {number})")
        await connection.execute("UPDATE orders SET status = '' WHERE id = 0")
        await connection.execute("""SELECT brain.publish('orders', 'sum', '{"sum": 1.10}')""")
        for number in numbers:
            assert f'"total":{number},' in await client.text()
        assert (await client.text()).count('"total":1.50,') == 2
        assert '"data":{"sum":1.10}' in await client.text()


async def test_a_server_that_is_killed_while_rows_change_loses_and_doubles_nothing(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(ORDERS)
    with socket.create_server(("localhost", 0)) as reserved:
        port = str(reserved.getsockname()[1])
    started = ("--database-url", database, "--port", port)
    total, printed = 0, list[dict[str, Any]]()
    async with listening_at(tmp_path, f"http://localhost:{port}", "orders", "--snapshot") as client:
        for _ in range(3):
            async with running_brain(tmp_path, *started) as server:
                if not printed:
                    printed += await client.until("live")
                writing = asyncio.create_task(write(connection, total, 300))
                printed += await client.lines(100)
                server.process.send_signal(signal.SIGKILL)
                await server.process.wait()
                await writing
                total += 300
        async with running_brain(tmp_path, *started):
            while len(changed := keys(printed)) < total:
                printed.append(await client.line())
        await connection.execute(INSERT, total, total)
        assert changed == list(range(total))
        assert "reset" not in [line["op"] for line in printed]
        assert "brain: connected again\n" in client.stderr


async def write(connection: asyncpg.Connection, first: int, count: int) -> None:
    for id in range(first, first + count):
        await connection.execute(INSERT, id, id)


async def test_a_second_run_with_a_cursor_file_goes_on_where_the_first_one_ended(
    tmp_path: Path, server: RunningBrain, connection: asyncpg.Connection
) -> None:
    file = ("orders", "--cursor-file", str(tmp_path / "cursors"))
    ready = await brain("listen", *file, "--until-live", "--url", server.http)
    assert (ready.status, ready.stdout) == (0, ""), ready.stderr
    await connection.execute(INSERT, 1, 5)

    first = await brain("listen", *file, "--count", "2", "--url", server.http)
    assert first.status == 0, first.stderr
    assert keys([json.loads(line) for line in first.stdout.splitlines()]) == [1, 2]
    async with listening(tmp_path, server, *file) as client:
        assert keys(await client.lines(2)) == [3, 4]
        client.process.kill()
    last = await brain("listen", *file, "--until-live", "--url", server.http)
    assert last.status == 0, last.stderr
    # At least once: what was printed last may not have been noted.
    assert keys([json.loads(line) for line in last.stdout.splitlines()]) in ([5], [4, 5], [])


async def test_after_begins_behind_a_cursor_that_was_printed(
    tmp_path: Path, server: RunningBrain, connection: asyncpg.Connection
) -> None:
    async with listening(tmp_path, server, "orders", "--snapshot") as client:
        await client.until("live")
        await connection.execute(INSERT, 1, 3)
        cursor = (await client.lines(2))[1]["cursor"]
    ended = await brain("listen", "orders", "--after", cursor, "--until-live", "--url", server.http)
    assert keys([json.loads(line) for line in ended.stdout.splitlines()]) == [3]


async def test_what_cannot_be_resumed_is_a_reset_and_then_the_rows_and_a_line_of_warning(
    tmp_path: Path, server: RunningBrain, connection: asyncpg.Connection
) -> None:
    await connection.execute(INSERT, 1, 1)
    options = ("--after", "1.2.3", "--snapshot", "--until-live")
    async with listening(tmp_path, server, "orders", *options) as client:
        lines = await client.until("live")
        assert [line["op"] for line in lines] == ["reset", "snapshot", "snapshot-end", "live"]
        assert "1.2.3" in lines[0]["reason"]
        assert await client.ended() == 0
        assert client.stderr.startswith("brain: orders: what it has missed cannot be sent: ")


async def test_several_channels_come_in_one_output(
    tmp_path: Path, server: RunningBrain, connection: asyncpg.Connection
) -> None:
    async with listening(tmp_path, server, "orders", "news", "--snapshot") as client:
        live = {(await client.until("live"))[-1]["channel"] for _ in range(2)}
        assert live == {"orders", "news"}
        await connection.execute(INSERT, 1, 1)
        assert (await client.line())["channel"] == "orders"
        await connection.execute("INSERT INTO news VALUES (1)")
        assert (await client.line())["channel"] == "news"


async def test_lines_say_what_changed_and_control_no_terminal(
    tmp_path: Path, server: RunningBrain, connection: asyncpg.Connection
) -> None:
    async with listening(tmp_path, server, "orders", "--lines", "--snapshot") as client:
        assert "snapshot-end" in await client.text()
        assert "live" in await client.text()
        await connection.execute("INSERT INTO orders VALUES (1, E'\\x1b[2J\\u009b1m\\u202e', 1.50)")
        inserted = await client.text()
        assert inserted.isprintable()
        assert inserted[2] == ":"
        assert inserted[12:] == (
            r' insert   orders 1 id=1 status="\u001b[2J\u009b1m\u202e" total=1.50 paid=null'
        )
        await connection.execute("UPDATE orders SET status = 'über 漢字', paid = true")
        assert (await client.text()).endswith(
            r'update   orders 1 status="\u001b[2J\u009b1m\u202e"→"über 漢字" paid=null→true'
        )


async def test_json_has_no_character_that_controls_a_terminal(
    tmp_path: Path, server: RunningBrain, connection: asyncpg.Connection
) -> None:
    async with listening(tmp_path, server, "orders", "--snapshot") as client:
        await client.until("live")
        await connection.execute(
            "INSERT INTO orders VALUES (1, E'\\x1b[2J\\u009b\\u007f\\u202e漢')"
        )
        text = await client.text()
        assert text.isprintable()
        assert json.loads(text)["row"]["status"] == "\x1b[2J\x9b\x7f\u202e漢"


async def test_a_reader_that_ends_ends_the_command_without_a_word(
    tmp_path: Path, server: RunningBrain, connection: asyncpg.Connection
) -> None:
    await connection.execute(INSERT, 1, 2000)
    command = (
        f"{sys.executable} -m brain listen orders --snapshot --url {server.http} | head -1;"
        " echo ${PIPESTATUS[0]}"
    )
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        stdout, stderr = await process.communicate()
    first, status = stdout.decode().splitlines()
    assert json.loads(first)["key"] == [1]
    assert (status, stderr) == ("141", b"")


async def test_a_reader_that_ends_is_noticed_while_nothing_happens(
    tmp_path: Path, server: RunningBrain
) -> None:
    async with listening(tmp_path, server, "orders", "--snapshot") as client:
        await client.until("live")
        transport = client.process._transport  # type: ignore[attr-defined]
        transport.get_pipe_transport(1).close()
        assert await client.ended() == 141
        assert client.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["orders", "--where", "status"], "a condition is given as column=value"),
        (["orders", "--where", "total>null"], "nothing compares with null"),
        (["orders", "--where", '{"status":'], "the filter is no JSON"),
        (["orders", "--since", "tomorrow"], "is neither a duration nor a time"),
        (["orders", "--since", "2999-01-01"], "does not lie in the past"),
        (["orders", "--since", "0s"], "does not lie in the past"),
        (["orders", "--give-up", "soon"], "is no duration"),
        (["orders", "--since", "1m", "--after", "1.2.3"], "one of them is enough"),
        (["orders", "--table"], "--table needs a terminal"),
        (["orders", "--url", "ftp://localhost"], "is no URL of Brain"),
        (["orders", "--token", "se cret"], "the token is no token"),
        (["orders", "--token-file", "/nowhere"], "cannot be read: No such file"),
        (["orders", "--count", "0"], "--count"),
        ([], "Missing argument"),
    ],
)
async def test_wrong_usage_is_one_line_and_status_2(arguments: list[str], problem: str) -> None:
    ended = await brain("listen", *arguments)
    assert (ended.status, ended.stdout) == (2, ""), ended.stderr
    assert problem in ended.stderr
    assert "cret" not in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--where", "colour=red"], "colour"),
        (["--where", "total>=many"], "total"),
        (["--where", '{"status": {"like": "o%"}}'], "like"),
        (["--key", "[[1]]"], "key"),
    ],
)
async def test_what_brain_refuses_is_status_3_with_its_reason(
    server: RunningBrain, arguments: list[str], problem: str
) -> None:
    ended = await brain("listen", "orders", *arguments, "--url", server.http)
    assert (ended.status, ended.stdout) == (3, ""), ended.stderr
    assert problem in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


SECRET = "a secret of more than thirty-two bytes"


def token(seconds: float, channels: list[str]) -> str:
    claims = {"sub": "ann", "channels": channels, "exp": int(time.time() + seconds)}
    return jwt.encode(claims, SECRET, "HS256")


@asynccontextmanager
async def brain_with_tokens(
    folder: Path, database: str, **settings: str
) -> AsyncIterator[RunningBrain]:
    async with running_brain(
        folder, "--database-url", database, BRAIN_JWT_SECRET=SECRET, **settings
    ) as server:
        yield server


async def test_a_token_decides_and_one_that_expires_closes_for_good_unless_a_file_has_another(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(ORDERS)
    async with brain_with_tokens(tmp_path, database, BRAIN_JWT_LEEWAY_SECONDS="0") as server:
        none = await brain("listen", "orders", "--url", server.http)
        assert none.status == 3
        assert "not allowed to read orders" in none.stderr
        unknown = await brain("listen", "orders", "--url", server.http, BRAIN_TOKEN="unknown")
        assert unknown.status == 3
        assert "it does not know the user of the token" in unknown.stderr
        other = {"BRAIN_TOKEN": token(600, ["news"])}
        refused = await brain("listen", "orders", "--url", server.http, **other)
        assert refused.status == 3
        assert other["BRAIN_TOKEN"] not in refused.stderr

        short = token(6, ["orders"])
        file = tmp_path / "token"
        file.write_text(f"{short}\n")
        from_file = ("orders", "--snapshot", "--token-file", str(file))
        async with (
            listening(tmp_path, server, "orders", BRAIN_TOKEN=short) as fixed,
            listening(tmp_path, server, *from_file) as renewed,
        ):
            await renewed.until("live")
            file.write_text(token(600, ["orders"]))
            assert await fixed.ended() == 4, fixed.stderr
            assert fixed.stderr.count("brain: the token has expired") == 1
            await connection.execute(INSERT, 1, 1)
            assert keys(await renewed.lines(1)) == [1]


async def test_it_gives_up_after_the_time_that_was_given(tmp_path: Path) -> None:
    with socket.create_server(("localhost", 0)) as reserved:
        port = reserved.getsockname()[1]
    url = f"http://localhost:{port}"
    ended = await brain("listen", "orders", "--url", url, "--give-up", "0.5s")
    assert (ended.status, ended.stdout) == (5, "")
    assert ended.stderr.splitlines() == [
        f"brain: offline: connecting to localhost:{port} failed: refused: Is Brain running there?",
        "brain: Brain was not reached for 0.5 s",
    ]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_ends_it_with_its_status_and_no_traceback(
    tmp_path: Path, server: RunningBrain, number: signal.Signals, status: int
) -> None:
    async with listening(tmp_path, server, "orders", "--snapshot") as client:
        await client.until("live")
        client.process.send_signal(number)
        assert await client.ended() == status
        assert client.stderr == ""


async def test_a_cursor_file_that_cannot_be_used_is_status_1(
    tmp_path: Path, server: RunningBrain
) -> None:
    (tmp_path / "cursors").write_text("{")
    ended = await brain(
        "listen", "orders", "--url", server.http, "--cursor-file", str(tmp_path / "cursors")
    )
    assert ended.status == 1
    assert "is damaged" in ended.stderr


async def test_a_slow_reader_gets_everything(
    tmp_path: Path, server: RunningBrain, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        "INSERT INTO orders SELECT n, repeat('x', 1000), n FROM generate_series(1, 3000) n"
    )
    async with listening(tmp_path, server, "orders", "--snapshot", "--until-live") as client:
        await client.line()
        await connection.execute(INSERT, 3001, 3001)
        lines = await client.until("live")
        assert set(keys(lines)) == set(range(2, 3002))
        assert await client.ended() == 0


async def test_a_signal_ends_it_while_nothing_reads_what_it_writes(
    server: RunningBrain, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        "INSERT INTO orders SELECT n, repeat('x', 1000), n FROM generate_series(1, 1000) n"
    )
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "brain", "listen", "orders", "--snapshot", "--url", server.http),
        stdout=writing,
        stderr=asyncio.subprocess.PIPE,
        env=clean_environment(),
    )
    os.close(writing)
    try:
        assert await asyncio.to_thread(os.read, reading, 1) == b"{"
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE_SECONDS):
            _, stderr = await process.communicate()
        assert (process.returncode, stderr) == (130, b"")
    finally:
        os.close(reading)
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_the_command_line_imports_the_client_for_this_command_alone() -> None:
    command = "import sys, brain.cli.main, brain.cli.listen; print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-c", command], text=True).split()
    assert not [name for name in modules if name.partition(".")[0] in ("rich", "websockets")]
    assert "brain.client" not in modules
