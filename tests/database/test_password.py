"""The password of the database is read anew for each connection."""

from __future__ import annotations

import asyncio
import shlex
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from brain.cli.database import database
from brain.database import connection as connection_module
from brain.database.connection import connect
from brain.database.url import UrlWithCommand
from brain.errors import DatabaseUnreachable
from brain.settings import Settings


@asynccontextmanager
async def asking_server(passwords: list[str]) -> AsyncIterator[int]:
    """Run a server that asks for a password in clear text, notes it and refuses it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack(">i", await reader.readexactly(4))
        if struct.unpack(">i", (await reader.readexactly(length - 4))[:4]) == (80877103,):
            writer.write(b"N")  # no TLS
            (length,) = struct.unpack(">i", await reader.readexactly(4))
            await reader.readexactly(length - 4)
        writer.write(b"R" + struct.pack(">ii", 8, 3))
        await reader.readexactly(1)
        (length,) = struct.unpack(">i", await reader.readexactly(4))
        passwords.append((await reader.readexactly(length - 4))[:-1].decode())
        text = b"SFATAL\0C28P01\0Mno\0\0"
        writer.write(b"E" + struct.pack(">i", len(text) + 4) + text)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def by_command(file: Path, port: int) -> str:
    program = f"print(open({str(file)!r}).read().strip())"
    command = shlex.join([sys.executable, "-S", "-c", program])
    return UrlWithCommand(f"postgresql://me:other@127.0.0.1:{port}/d", command)


def by_file(file: Path, port: int) -> str:
    return f"postgresql://me@127.0.0.1:{port}/d?passfile={file}"


@pytest.mark.parametrize(("way", "prefix"), [(by_command, ""), (by_file, "*:*:*:*:")])
async def test_a_password_that_was_changed_is_used_by_the_next_connection(
    tmp_path: Path, way: Callable[[Path, int], str], prefix: str
) -> None:
    file, passwords = tmp_path / "password", list[str]()
    file.touch(0o600)
    async with asking_server(passwords) as port:
        url = way(file, port)
        for password in ("first", "sec ond"):
            file.write_text(f"{prefix}{password}\n")
            with pytest.raises(DatabaseUnreachable, match=r"login .* was refused") as refused:
                await connect(url)
            assert password not in str(refused.value)
    assert passwords == ["first", "sec ond"]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("/nowhere/at-all", "No such file"),
        ("sh -c 'echo secret; echo secret >&2; exit 3'", "exit status is 3"),
        ("sleep 100", "did not end within"),
        ("'", "no command"),
        (" ", "no command"),
        ("yes secret", "more than 65536 bytes"),
        ("sh -c 'setsid sleep 2 & exit 0'", "did not end within"),
    ],
)
async def test_a_command_that_prints_no_password_is_named(
    command: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "CONNECT_SECONDS", 0.5)
    with pytest.raises(DatabaseUnreachable, match=reason) as refused:
        await connect(UrlWithCommand("postgresql://me@127.0.0.1:1/d", command))
    assert "BRAIN_DATABASE_PASSWORD_COMMAND" in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("end", ["exit 0", "exit 3", "yes", "wait"])
async def test_nothing_that_the_command_has_started_outlives_it(
    tmp_path: Path, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "CONNECT_SECONDS", 2.0)
    file = tmp_path / "pid"
    script = f"sleep 100 >&- & echo $! > {file}; {end}"
    url = UrlWithCommand("postgresql://me@127.0.0.1:1/d", shlex.join(["sh", "-c", script]))
    with pytest.raises(DatabaseUnreachable):
        await connect(url)
    async with asyncio.timeout(10):
        while is_running(int(file.read_text())):
            await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    """Return True unless the process has ended, although nobody may have waited for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_commands_of_brain_use_it() -> None:
    url = "postgresql://me@127.0.0.1:1/d"
    settings = Settings(database_url=url, database_password_command="cat it")
    with database(settings) as found:
        assert found.url == url
        assert isinstance(found.url, UrlWithCommand) and found.url.password_command == "cat it"
