"""How many clients all processes have that serve the changes of one database."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from uuid import uuid4

import asyncpg

from brain.database.connection import DISCONNECTIONS, connected, told

# brain.is_recent takes a process for gone that has said nothing for five seconds.
BEAT_SECONDS = 2.0
# How often the count is looked at, and how long after one beat another may follow.
LOOK_SECONDS = 0.2
ANSWER_SECONDS = 0.5
LEAVE_SECONDS = 1.0
RETRY_SECONDS = 1.0

logger = logging.getLogger(__name__)


class Nodes:
    """
    Tells the other processes how many clients this one has, and knows how many they have.

    All is asked by one task, over a connection of its own: whoever wants to know waits for that
    task and never for the database, and those who ask at the same time get the same answer.
    """

    def __init__(self, url: str, clients: Callable[[], int], timeout_seconds: float) -> None:
        """`clients` says how many this process has; the database may take `timeout_seconds`."""
        self._url = url
        self._clients = clients
        self._timeout_seconds = timeout_seconds
        self._id = uuid4()
        self._name = f"{socket.gethostname()} {os.getpid()}"
        self._is_cut_off = False
        self._asked = asyncio.Event()
        self._question: asyncio.Future[int] | None = None
        """What those who have asked are waiting for."""

    async def clients_elsewhere(self) -> int:
        """Return how many clients all others have: 0 if the database does not say so promptly."""
        if self._is_cut_off:
            return 0
        if self._question is None:
            self._question = asyncio.get_running_loop().create_future()
            self._asked.set()
        question = self._question
        await asyncio.wait([question], timeout=ANSWER_SECONDS)
        return question.result() if question.done() else 0

    async def beat(self) -> None:
        """For ever, tell of every change of the count soon, and of this process now and then."""
        while True:
            try:
                async with connected(self._url) as connection:
                    await self._beat_over(connection)
            except DISCONNECTIONS as error:
                if not self._is_cut_off:
                    logger.warning("cannot count the clients of all nodes: %s", told(error))
                self._is_cut_off = True
                self._reply(self._taken_question(), 0)
            await asyncio.sleep(RETRY_SECONDS)

    async def _beat_over(self, connection: asyncpg.Connection) -> None:
        said, said_at = None, -math.inf
        try:
            while True:
                question, clients = self._taken_question(), self._clients()
                silence = time.monotonic() - said_at
                if silence >= (BEAT_SECONDS if clients == said else LOOK_SECONDS):
                    said, said_at = clients, time.monotonic()
                    self._reply(question, await self._tell(connection, clients))
                elif question is not None:
                    self._reply(question, await self._read(connection))
                self._is_cut_off = False
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._asked.wait()
        except asyncio.CancelledError:
            await self._leave(connection)
            raise

    def _taken_question(self) -> asyncio.Future[int] | None:
        """Return what is to be answered now; who asks from here on does it anew."""
        question, self._question = self._question, None
        self._asked.clear()
        return question

    def _reply(self, question: asyncio.Future[int] | None, elsewhere: int) -> None:
        if question is not None:
            question.set_result(elsewhere)

    async def _tell(self, connection: asyncpg.Connection, clients: int) -> int:
        elsewhere: int = await connection.fetchval(
            "SELECT brain.beat($1, $2, $3)",
            self._id,
            self._name,
            clients,
            timeout=self._timeout_seconds,
        )
        return elsewhere

    async def _read(self, connection: asyncpg.Connection) -> int:
        elsewhere: int = await connection.fetchval(
            "SELECT brain.clients_elsewhere($1)", self._id, timeout=self._timeout_seconds
        )
        return elsewhere

    async def _leave(self, connection: asyncpg.Connection) -> None:
        """Take this process out of the count at once, if the database is there."""
        with suppress(*DISCONNECTIONS):
            async with asyncio.timeout(LEAVE_SECONDS):
                await connection.execute("SELECT brain.leave($1)", self._id)
