"""What goes wrong at a Brain in operation, made for real."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import jwt
from httpx2 import AsyncClient

from tests.end_to_end.brain import ended
from tests.faults.servers import OwnPostgres
from tests.operating.scene import SECRET, Scene
from tests.raw_websocket import (
    SMALL_BUFFER_BYTES,
    HandshakeRefused,
    connected_to,
    handshake,
    upgraded,
)

PAUSE_SECONDS = 0.1
COMPILER = shutil.which("cc") or shutil.which("gcc")
FOREIGN_ORIGIN = "https://elsewhere.example"
# So few files are left open to a process.
FILES_LEFT = 40


@dataclass(frozen=True)
class Fault:
    """One fault, and what has to show it."""

    make: Callable[[Scene], AbstractAsyncContextManager[None]]
    """Makes it, and ends it with the context."""
    alert: str
    check: str
    """Of `brain doctor`."""
    way_out: str
    """Part of what that prints."""
    options: tuple[str, ...] = ()
    """Of `brain doctor`."""
    settings: dict[str, str] = field(default_factory=dict)
    """Of Brain."""


@asynccontextmanager
async def repeated(step: Callable[[], object]) -> AsyncIterator[None]:
    """Do something again and again, until the context ends."""

    async def repeat() -> None:
        while True:
            outcome = step()
            if asyncio.iscoroutine(outcome):
                await outcome
            await asyncio.sleep(PAUSE_SECONDS)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def open_transaction(database: str, *statements: str) -> AsyncIterator[None]:
    connection = await asyncpg.connect(database)
    transaction = connection.transaction()
    await transaction.start()
    for statement in statements:
        await connection.execute(statement)
    try:
        yield
    finally:
        await transaction.rollback()
        await connection.close()


@asynccontextmanager
async def writing(scene: Scene, note: str = "") -> AsyncIterator[None]:
    """Change a row again and again."""
    pool = await asyncpg.create_pool(scene.database, min_size=1, max_size=1)
    statement = "UPDATE orders SET status = clock_timestamp()::text, note = $1"
    async with pool, repeated(lambda: pool.execute(statement, note)):
        yield


def database_down(postgres: OwnPostgres) -> Callable[[Scene], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def make(_: Scene) -> AsyncIterator[None]:
        await postgres.stop(signal.SIGQUIT)
        yield
        await postgres.start()

    return make


def slow_disk(folder: Path) -> Callable[[Scene], AbstractAsyncContextManager[None]]:
    """Have each flush of a PostgreSQL with `preloaded` take long."""

    @asynccontextmanager
    async def make(scene: Scene) -> AsyncIterator[None]:
        slow = folder / "slow"
        async with writing(scene):
            slow.touch()
            try:
                yield
            finally:
                slow.unlink()

    return make


async def preloaded(folder: Path) -> dict[str, str]:
    """Compile what makes flushes slow, and return the environment that loads it."""
    library = folder / "slow_flush.so"
    source = Path(__file__).with_name("slow_flush.c")
    compiled = await ended(
        (str(COMPILER), "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl")
    )
    assert compiled.status == 0, compiled.stderr
    return {"LD_PRELOAD": str(library), "SLOW_FLUSH_WHILE": str(folder / "slow")}


@asynccontextmanager
async def locked_table(scene: Scene) -> AsyncIterator[None]:
    async with open_transaction(scene.database, "LOCK TABLE orders"):
        yield


@asynccontextmanager
async def disabled_trigger(scene: Scene) -> AsyncIterator[None]:
    connection = await asyncpg.connect(scene.database)
    await connection.execute("ALTER TABLE orders DISABLE TRIGGER ALL")
    await connection.close()
    yield


@asynccontextmanager
async def wrong_origin(scene: Scene) -> AsyncIterator[None]:
    """A page of another site tries to connect."""

    async def connect() -> None:
        async with connected_to(scene.brain.port) as client:
            try:
                await client.send(handshake("/ws/v1", f"Origin: {FOREIGN_ORIGIN}"))
                await client.receive_handshake()
            except HandshakeRefused:
                pass

    async with repeated(connect):
        yield


def token(secret: str, lasts_seconds: float) -> str:
    return jwt.encode({"sub": "ann", "exp": time.time() + lasts_seconds}, secret, "HS256")


EXPIRED = token(SECRET, -3600)
# Signed when the tests are collected: it lasts longer than all of them take.
OF_ANOTHER_KEY = token("another secret, which Brain does not have", 86_400)


def refused_token(value: str) -> Callable[[Scene], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def make(scene: Scene) -> AsyncIterator[None]:
        url = f"{scene.brain.http}/api/brain/snapshot?channel=orders"
        async with AsyncClient(trust_env=False) as client:
            headers = {"authorization": f"Bearer {value}"}
            async with repeated(lambda: client.get(url, headers=headers)):
                yield

    return make


@asynccontextmanager
async def full_log(scene: Scene) -> AsyncIterator[None]:
    """A transaction that stays open keeps old events in the log, until it has them everywhere."""
    slots = [f"LOCK TABLE brain.events_{number} IN ACCESS SHARE MODE" for number in range(4)]
    connection = await asyncpg.connect(scene.database)
    async with writing(scene), open_transaction(scene.database, *slots):
        async with repeated(lambda: connection.execute("SELECT brain.trim('0 s')")):
            yield
    await connection.close()


@asynccontextmanager
async def slow_client(scene: Scene) -> AsyncIterator[None]:
    """A client reads nothing of what it is sent."""
    async with (
        upgraded(scene.brain.port, "/ws?channel=orders", SMALL_BUFFER_BYTES),
        writing(scene, "x" * 100_000),
    ):
        yield


@asynccontextmanager
async def hung_worker(scene: Scene) -> AsyncIterator[None]:
    os.kill(scene.workers[0], signal.SIGSTOP)
    yield


@asynccontextmanager
async def open_files_used_up(scene: Scene) -> AsyncIterator[None]:
    process = scene.brain.process.pid
    used = len(os.listdir(f"/proc/{process}/fd"))
    _, most = resource.prlimit(process, resource.RLIMIT_NOFILE)
    resource.prlimit(process, resource.RLIMIT_NOFILE, (used + FILES_LEFT, most))
    async with AsyncExitStack() as clients:
        for _ in range(FILES_LEFT - 2):
            await clients.enter_async_context(upgraded(scene.brain.port, "/ws/v1"))
        yield
