"""The live table of `brain listen`, on a terminal that is read as a person would."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pyte
import pytest

from tests.end_to_end.brain import (
    PATIENCE_SECONDS,
    RunningBrain,
    becomes,
    clean_environment,
    running_brain,
)

ORDERS = """
    CREATE TABLE orders (id int PRIMARY KEY, status text, total numeric, note json);
    SELECT brain.watch('orders', 'orders', '{id,status,total,note}');
    INSERT INTO orders VALUES (1, 'open', 1.50, NULL), (2, 'open', 20, '{"a": [1]}')
"""


class Terminal:
    """A `brain listen` on a terminal, and what its screen shows."""

    def __init__(
        self, process: asyncio.subprocess.Process, descriptor: int, columns: int, lines: int
    ) -> None:
        self.process = process
        self.output = b""
        self._descriptor = descriptor
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    async def becomes(self, condition: Callable[[], object]) -> None:
        """Return once a condition holds; otherwise the error has what is shown."""
        try:
            await becomes(condition)
        except TimeoutError:
            raise AssertionError(self.text) from None

    async def shows(self, *texts: str) -> None:
        """Return once all of these are on the screen."""
        await self.becomes(lambda: all(text in self.text for text in texts))

    def is_highlighted(self, text: str) -> bool:
        """Return True if a text is shown in reverse."""
        for number, line in enumerate(self._screen.display):
            if (column := line.find(text)) >= 0:
                return bool(self._screen.buffer[number][column].reverse)
        return False

    def resize(self, columns: int, lines: int) -> None:
        """Do what a terminal does when it is resized."""
        termios.tcsetwinsize(self._descriptor, (lines, columns))
        self._screen.resize(lines, columns)
        self.process.send_signal(signal.SIGWINCH)

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE_SECONDS):
            status = await self.process.wait()
        await becomes(lambda: self._descriptor < 0)
        return status

    def close(self) -> None:
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 1 << 16)
        except OSError:  # the program has ended
            self.close()
            return
        self.output += data
        self._stream.feed(data)


@asynccontextmanager
async def terminal(
    url: str, *arguments: str, columns: int = 80, lines: int = 24
) -> AsyncIterator[Terminal]:
    environment = {**clean_environment(), "BRAIN_URL": url, "TERM": "xterm-256color"}
    for name in ("COLUMNS", "LINES"):  # pytest-xdist sets them: they would count for more
        environment.pop(name, None)
    ours, its = os.openpty()
    termios.tcsetwinsize(ours, (lines, columns))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "brain", "listen", *arguments),
        stdin=its,
        stdout=its,
        stderr=its,
        env=environment,
        start_new_session=True,
    )
    os.close(its)
    shown = Terminal(process, ours, columns, lines)
    try:
        yield shown
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        shown.close()


@pytest.fixture
def database(shared_database: str) -> str:
    return shared_database


@pytest.fixture
async def server(shared_brain: RunningBrain, connection: asyncpg.Connection) -> RunningBrain:
    await connection.execute(ORDERS)
    return shared_brain


async def test_rows_change_in_place_and_what_changed_is_highlighted_for_a_moment(
    server: RunningBrain, connection: asyncpg.Connection
) -> None:
    async with terminal(server.http, "orders", "--snapshot") as shown:
        await shown.shows("● live", "orders  2 rows")
        assert "id  status  total  note" in shown.lines[1]
        assert shown.lines[2].split() == ["1", "open", "1.50", "null"]
        assert shown.lines[3].split() == ["2", "open", "20", '{"a":[1]}']
        assert not shown.is_highlighted("open")

        await connection.execute("UPDATE orders SET status = 'paid' WHERE id = 1")
        await shown.becomes(lambda: shown.is_highlighted("paid"))
        assert shown.lines[2].split() == ["1", "paid", "1.50", "null"]
        assert not shown.is_highlighted("1.50")
        await shown.becomes(lambda: not shown.is_highlighted("paid"))

        await connection.execute("DELETE FROM orders WHERE id = 1")
        await shown.becomes(lambda: "paid" not in shown.text)
        assert shown.lines[2].split()[0] == "2"
        await connection.execute("SELECT brain.publish('orders', 'greeting', '\"hello\"')")
        await shown.shows("message  orders greeting hello", "3 changes")


async def test_text_of_a_row_cannot_control_the_terminal_and_wide_characters_stay_in_line(
    server: RunningBrain, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        "INSERT INTO orders VALUES (3, E'\\x1b[2J\\x1b]0;title\\x07[bold]\\n', 3, NULL),"
        " (4, '漢字', 4, NULL)"
    )
    async with terminal(server.http, "orders", "--snapshot") as shown:
        await shown.shows("● live", "4 rows")
        assert r"\x1b[2J\x1b]0;title\x07[bold]\n" in shown.lines[4]
        assert shown.lines[2].index("1.50") == shown.lines[4].rindex("3 ")
        # pyte has an empty cell after each wide character.
        assert "漢" in shown.lines[5]
        assert b"\x1b[2J\x1b]0" not in shown.output
        assert b"]0;title\x07" not in shown.output


async def test_a_narrow_terminal_shows_the_columns_that_fit_and_a_wide_one_all(
    server: RunningBrain,
) -> None:
    async with terminal(server.http, "orders", "--snapshot", columns=24, lines=10) as shown:
        await shown.shows("● live", "status")
        assert "note" not in shown.text
        shown.resize(100, 10)
        await shown.shows("id  status  total  note", '{"a":[1]}')
        shown.resize(40, 10)
        await shown.becomes(lambda: "1 columns do not fit" not in shown.text)
        await shown.shows("id  status  total", "● live")


async def test_of_more_rows_than_lines_those_that_changed_last_are_shown(
    server: RunningBrain, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        "INSERT INTO orders SELECT n, 'open', n, NULL FROM generate_series(3, 5000) n"
    )
    async with terminal(server.http, "orders", "--snapshot", lines=10) as shown:
        await shown.shows("● live", "more than 1,000 rows")
        assert shown.lines[-1].startswith("● live")
        await connection.execute("UPDATE orders SET status = 'paid' WHERE id = 7")
        await shown.shows("paid")


async def test_a_lost_connection_is_told_and_the_rows_stay(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(ORDERS)
    with socket.create_server(("localhost", 0)) as reserved:
        port = str(reserved.getsockname()[1])
    started = ("--database-url", database, "--port", port)
    async with terminal(f"http://localhost:{port}", "orders", "--snapshot") as shown:
        await shown.shows("● offline: connecting to ")
        async with running_brain(tmp_path, *started) as server:
            await shown.shows("● live", "1.50")
            server.process.kill()
            await shown.shows("● offline", "1.50")
            await connection.execute("UPDATE orders SET total = 7.70 WHERE id = 1")
        async with running_brain(tmp_path, *started):
            await shown.shows("● live", "7.70")
        assert "1.50" not in shown.text


async def test_ctrl_c_gives_the_terminal_back_with_the_last_table(server: RunningBrain) -> None:
    async with terminal(server.http, "orders", "--snapshot") as shown:
        await shown.shows("● live", "1.50")
        shown.process.send_signal(signal.SIGINT)
        assert await shown.ended() == 130
        _, screen, after = shown.output.rpartition(b"\x1b[?1049l")
        assert screen
        assert b"\x1b[?25h" in shown.output
        assert b"1.50" in after
        assert b"Traceback" not in shown.output


async def test_without_a_terminal_for_it_a_table_is_no_default(server: RunningBrain) -> None:
    async with terminal(server.http, "orders", "--snapshot", "--lines", "--count", "1") as shown:
        assert await shown.ended() == 0
        await shown.shows("snapshot orders 1 id=1 status=open total=1.50 note=null")


async def test_a_refusal_is_read_on_the_usual_screen(server: RunningBrain) -> None:
    async with terminal(server.http, "orders", "--where", "colour=red") as shown:
        assert await shown.ended() == 3
        _, screen, after = shown.output.rpartition(b"\x1b[?1049l")
        assert screen
        assert b"brain: " in after
        assert b"colour" in after
