"""SIGHUP has a running Brain read its settings again."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sys
import termios
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from httpx2 import AsyncClient
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.end_to_end.brain import (
    PATIENCE_SECONDS,
    RunningBrain,
    becomes,
    clean_environment,
    running,
)

OLD, NEW = "o" * 32, "n" * 32


def events(output: Path, *names: str) -> list[dict[str, Any]]:
    """Return the lines of a log in JSON that are about these events."""
    complete, _, _ = output.read_text().rpartition("\n")
    lines = [json.loads(line) for line in complete.splitlines()]
    return [line for line in lines if line["event"] in names]


@asynccontextmanager
async def serving(
    folder: Path, database: str, *arguments: str, starts_session: bool = True
) -> AsyncIterator[RunningBrain]:
    """Run a Brain that logs in JSON, with the settings in the file `brain.env`."""
    command = (sys.executable, "-m", "brain", "serve", "--port=0", "--log-format=json")
    options = (f"--database-url={database}", f"--env-file={folder / 'brain.env'}", *arguments)
    output = folder / "brain.log"
    async with running((*command, *options), output, {}, starts_session=starts_session) as process:
        await becomes(lambda: events(output, "ready") or process.returncode is not None)
        (ready,) = events(output, "ready")
        yield RunningBrain(process, ready["port"], output)


def write(folder: Path, **settings: object) -> None:
    lines = [f"BRAIN_{name.upper()}={value}\n" for name, value in settings.items()]
    (folder / "brain.env").write_text("".join(lines))


async def reload(brain: RunningBrain, workers: int = 0) -> dict[str, Any]:
    """Have a Brain read its settings again; return what it says, once all processes have."""
    names = ("settings_reloaded", "reload_failed")
    before = len(events(brain.output, *names))
    brain.process.send_signal(signal.SIGHUP)
    await becomes(lambda: len(events(brain.output, *names)) >= before + 1)
    said: dict[str, Any] = events(brain.output, *names)[before]
    if said["event"] == "settings_reloaded":
        await becomes(lambda: len(events(brain.output, *names)) >= before + 1 + workers)
    return said


def token(secret: str, user: str = "ann") -> str:
    return jwt.encode({"sub": user, "exp": time.time() + 600}, secret, "HS256")


async def status(brain: RunningBrain, secret: str) -> int:
    """Return how a request with a token is answered."""
    headers = {"authorization": f"Bearer {token(secret)}"}
    async with AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{brain.http}/api/brain/snapshot/tasks", headers=headers)
    return answer.status_code


async def opened(brain: RunningBrain, secret: str | None = None) -> ClientConnection:
    """Return a client that has been greeted."""
    headers = {} if secret is None else {"authorization": f"Bearer {token(secret)}"}
    url = f"ws://localhost:{brain.port}/ws?channel=tasks"
    client = await connect(url, additional_headers=headers, proxy=None)
    await client.recv()
    return client


async def close_code(client: ClientConnection) -> int:
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await client.recv()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


async def test_a_withdrawn_key_is_refused_and_its_clients_have_to_come_with_another_token(
    tmp_path: Path, database: str
) -> None:
    write(tmp_path, jwt_secret=NEW, jwt_previous_secret=OLD)
    async with serving(tmp_path, database) as brain:
        with_old, with_new = await opened(brain, OLD), await opened(brain, NEW)
        anonymous = await opened(brain)
        assert [await status(brain, secret) for secret in (OLD, NEW)] == [200, 200]

        write(tmp_path, jwt_secret=NEW)
        said = await reload(brain)
        assert said["changed"] == ["BRAIN_JWT_PREVIOUS_SECRET"]
        assert await close_code(with_old) == 4401
        assert [await status(brain, secret) for secret in (OLD, NEW)] == [401, 200]
        for client in (with_new, anonymous):
            await client.ping()
            assert client.close_code is None
            await client.close()
    text = brain.output.read_text()
    assert not any(secret in text for secret in (OLD, NEW, token(OLD)[:20]))


async def test_a_key_file_with_another_key_is_noticed(tmp_path: Path, database: str) -> None:
    keys = [rsa.generate_private_key(65537, 2048) for _ in range(2)]
    file = tmp_path / "key.pem"

    def publish(number: int) -> None:
        file.write_bytes(
            keys[number]
            .public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )

    async def answered(number: int) -> int:
        claims = {"sub": "ann", "exp": time.time() + 600}
        headers = {"authorization": f"Bearer {jwt.encode(claims, keys[number], 'RS256')}"}
        async with AsyncClient(trust_env=False) as client:
            url = f"{brain.http}/api/brain/snapshot/tasks"
            return (await client.get(url, headers=headers)).status_code

    publish(0)
    write(tmp_path, jwt_key_file=file)
    async with serving(tmp_path, database) as brain:
        assert [await answered(0), await answered(1)] == [200, 401]
        publish(1)
        assert (await reload(brain))["changed"] == ["BRAIN_JWT_KEY_FILE"]
        assert [await answered(0), await answered(1)] == [401, 200]
        file.write_text("-----BEGIN PRIVATE KEY-----")
        assert "BRAIN_JWT_KEY_FILE" in (await reload(brain))["message"]
        assert [await answered(0), await answered(1)] == [401, 200]


async def test_limits_and_the_level_change_and_what_needs_a_restart_is_named(
    tmp_path: Path, database: str
) -> None:
    write(tmp_path, max_message_bytes=1000, ring_bytes=1_000_000)
    async with serving(tmp_path, database) as brain:
        client = await opened(brain)
        await client.send("x" * 900)
        write(
            tmp_path,
            max_message_bytes=500,
            max_connections=1,
            ring_bytes=2_000_000,
            port=1,
            log_level="warning",
        )
        said = await reload_quietly(brain)
        assert said["changed"] == ["BRAIN_RING_BYTES"]
        # The option for the port overrides the file.
        with pytest.raises(InvalidStatus) as refused:
            await opened(brain)
        assert refused.value.response.status_code == 503
        await client.send("x" * 900)
        assert await close_code(client) == 1009
        client = await opened(brain)
        await client.close()
    assert events(brain.output, "settings_reloaded") == []  # it is below the level
    assert "connection_closed" not in brain.output.read_text()


async def reload_quietly(brain: RunningBrain) -> dict[str, Any]:
    brain.process.send_signal(signal.SIGHUP)
    await becomes(lambda: events(brain.output, "restart_needed"))
    (said,) = events(brain.output, "restart_needed")
    return said


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("BRAIN_MAX_CONNECTIONS=1\nBRAIN_JWT_SECRET", "line 2: it should read NAME=value"),
        ("BRAIN_MAX_CONNECTIONS=1\nBRAIN_PING_SECONDS=soon", "BRAIN_PING_SECONDS is wrong: 'soon'"),
        ("BRAIN_MAX_CONNECTIONS=1\nBRAIN_JWT_SECRET=s3cret", "BRAIN_JWT_SECRET must have"),
        (None, "No such file or directory (BRAIN_ENV_FILE)"),
    ],
)
async def test_settings_that_are_wrong_change_nothing(
    shared_reloading: tuple[RunningBrain, Path], text: str | None, named: str
) -> None:
    brain, folder = shared_reloading
    file = folder / "brain.env"
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    said = await reload(brain)

    assert (said["event"], said["level"]) == ("reload_failed", "error")
    assert named in said["message"]
    assert "s3cret" not in brain.output.read_text()
    one, other = await opened(brain, NEW), await opened(brain, NEW)
    await one.close()
    await other.close()


@pytest.fixture(scope="module")
async def shared_reloading(
    module_database: Any, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[RunningBrain, Path]]:
    folder = tmp_path_factory.mktemp("reloading")
    write(folder, jwt_secret=NEW)
    async with serving(folder, module_database.url) as brain:
        yield brain, folder


async def test_whether_tokens_are_needed_is_changed_by_a_restart_alone(
    shared_reloading: tuple[RunningBrain, Path],
) -> None:
    brain, folder = shared_reloading
    write(folder, max_message_depth=9)
    assert (await reload(brain))["changed"] == ["BRAIN_MAX_MESSAGE_DEPTH"]
    await becomes(lambda: events(brain.output, "restart_needed"))
    assert events(brain.output, "restart_needed")[-1]["changed"] == ["BRAIN_JWT_SECRET"]
    assert [await status(brain, secret) for secret in (OLD, NEW)] == [401, 200]


async def test_workers_and_those_that_are_started_later_have_the_new_settings(
    tmp_path: Path, database: str
) -> None:
    write(tmp_path, jwt_secret=NEW, jwt_previous_secret=OLD)
    async with serving(tmp_path, database, "--workers=2") as brain:
        clients = [await opened(brain, OLD) for _ in range(6)]
        write(tmp_path, jwt_secret=NEW)
        await reload(brain, workers=2)
        said = events(brain.output, "settings_reloaded")
        assert {line.get("worker") for line in said} == {None, 1, 2}
        assert [await close_code(client) for client in clients] == [4401] * 6
        assert {await status(brain, OLD) for _ in range(8)} == {401}

        ready = events(brain.output, "worker_ready")
        os.kill(ready[0]["worker_process"], signal.SIGKILL)
        await becomes(lambda: len(events(brain.output, "worker_ready")) == 3)
        assert {await status(brain, OLD) for _ in range(8)} == {401}
        assert {await status(brain, NEW) for _ in range(8)} == {200}


async def test_keys_at_another_url_that_cannot_be_fetched_change_nothing_in_any_process(
    tmp_path: Path, database: str
) -> None:
    write(tmp_path, jwt_secret=NEW)
    async with serving(tmp_path, database, "--workers=2") as brain:
        write(tmp_path, jwks_url="http://127.0.0.1:1/keys", max_connections=1)
        said = await reload(brain)
        assert (said["event"], said.get("worker")) == ("reload_failed", None)
        assert "BRAIN_JWKS_URL" in said["message"]
        # No worker was to follow: they do the next time, with what is right by then.
        write(tmp_path, jwt_secret=NEW, max_connections=100)
        assert (await reload(brain, workers=2))["changed"] == ["BRAIN_MAX_CONNECTIONS"]
    assert len(events(brain.output, "reload_failed")) == 1


# The terminal.

SERVE = (sys.executable, "-m", "brain", "serve", "--port=0", "--log-format=json")


@asynccontextmanager
async def in_a_terminal(
    folder: Path, database: str, *prefix: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, int, Path]]:
    """Run Brain with a controlling terminal; yield its process, the terminal and its log."""
    output = folder / "brain.log"
    terminal, of_brain = os.openpty()
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(*prefix, *SERVE),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**clean_environment(), "BRAIN_DATABASE_URL": database},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(of_brain, termios.TIOCSCTTY, 0),
        )
    os.close(of_brain)
    try:
        await becomes(lambda: events(output, "ready"))
        yield process, terminal, output
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def test_a_brain_in_a_terminal_reads_its_settings_again_and_ends_with_the_terminal(
    tmp_path: Path, database: str
) -> None:
    async with in_a_terminal(tmp_path, database) as (process, terminal, output):
        process.send_signal(signal.SIGHUP)
        await becomes(lambda: events(output, "settings_reloaded"))
        os.close(terminal)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await process.wait() == 0
    assert len(events(output, "settings_reloaded")) == 1


async def test_a_brain_that_a_shell_signals_before_its_terminal_is_closed_ends(
    tmp_path: Path, database: str
) -> None:
    async with in_a_terminal(tmp_path, database) as (process, terminal, output):
        # It sees both at once, however busy the machine is between the two.
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGHUP)
        os.close(terminal)
        process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await process.wait() == 0
    assert events(output, "settings_reloaded") == []


async def test_a_brain_under_nohup_survives_its_terminal_and_reads_its_settings_again(
    tmp_path: Path, database: str
) -> None:
    async with in_a_terminal(tmp_path, database, "nohup") as (process, terminal, output):
        os.close(terminal)
        await becomes(lambda: len(events(output, "settings_reloaded")) == 1)
        process.send_signal(signal.SIGHUP)
        await becomes(lambda: len(events(output, "settings_reloaded")) == 2)
        assert process.returncode is None
