"""Who is connected to any of the processes that serve the changes of one database."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import time
from contextlib import suppress
from typing import NamedTuple
from uuid import UUID, uuid4

import asyncpg
import orjson

from brain.database.attendance import Attendance, Telling, is_text
from brain.database.connection import DISCONNECTIONS, connected, told

# brain.is_recent takes a process for dead that has said nothing for five seconds.
BEAT_SECONDS = 2.0
# How often the counts are looked at, and how long after one beat another may follow.
LOOK_SECONDS = 0.2
# What users do is told at once, and what follows within this time together.
GATHER_SECONDS = 0.02
ANSWER_SECONDS = 0.5
LEAVE_SECONDS = 1.0
RETRY_SECONDS = 1.0

# How much that users did is told in one statement, beside who is here at all.
MOST_ACTS = 5000
# How many different questions may wait. Whoever has another one is answered for this process alone.
MOST_QUESTIONS = 1000

ATTEND = "SELECT brain.attend($1, $2, $3, $4, $5, $6, $7::text::jsonb, $8, $9, $10::text::jsonb)"
ELSEWHERE = "SELECT brain.clients_elsewhere($1) AS clients"
EVERYWHERE = "SELECT clients, authenticated, users, channels FROM brain.everywhere()"
SUBSCRIBERS = "SELECT clients, ids FROM brain.subscribers($1)"

logger = logging.getLogger(__name__)

Question = tuple[str, object]
"""A query, and what it is about."""


class Everywhere(NamedTuple):
    """How many there are in all processes together."""

    clients: int
    authenticated: int
    """Of the clients, those with a user."""
    users: int
    """How many different ones."""
    channels: dict[str, int]
    """How many clients hear which."""


class Nodes:
    """
    Tells the other processes who is connected to this one, and knows how many they have.

    All is told and asked by one task, over a connection of its own: whoever wants to know waits for
    that task and never for the database, and those who ask the same at the same time get the same
    answer. Without the database it is that of this process alone.
    """

    def __init__(self, url: str, attendance: Attendance, timeout_seconds: float) -> None:
        """The database may take `timeout_seconds` for an answer."""
        self._url = url
        self._attendance = attendance
        self._timeout_seconds = timeout_seconds
        self._id = uuid4()
        self._name = f"{socket.gethostname()} {os.getpid()}"
        self._is_cut_off = False
        self._tellings = 0
        self._said: tuple[int, int] | None = None
        self._said_at = -math.inf
        self._wanted = asyncio.Event()
        """Is set when somebody asks, or something should be told soon."""
        self._questions: dict[Question, asyncio.Future[asyncpg.Record | None]] = {}
        """What those who have asked are waiting for."""
        attendance.when_urgent = self._wanted.set

    async def clients_elsewhere(self) -> int:
        """Return how many clients all others have: 0 if the database does not say so promptly."""
        answer = await self._answer((ELSEWHERE, self._id))
        return answer["clients"] if answer else 0

    async def everywhere(self) -> Everywhere:
        """Return how many clients all processes have, and what they hear."""
        answer = await self._answer((EVERYWHERE, None))
        if answer is None:
            counts = self._attendance.counts()
            return Everywhere(
                counts.clients, counts.authenticated, counts.users, dict(counts.channels)
            )
        return Everywhere(
            answer["clients"],
            answer["authenticated"],
            answer["users"],
            orjson.loads(answer["channels"]),
        )

    async def subscribers(self, channel: str) -> tuple[int, list[UUID]]:
        """
        Return how many clients of all processes hear `channel`, and the ids that may be listed.

        Of those at most ten thousand.
        """
        answer = await self._answer((SUBSCRIBERS, channel)) if is_text(channel) else None
        if answer is None:
            attendance = self._attendance
            return attendance.counts().channels.get(channel, 0), attendance.listed(channel)
        return answer["clients"], answer["ids"]

    async def beat(self) -> None:
        """For ever, tell of every change soon, and of this process now and then."""
        while True:
            try:
                async with connected(self._url) as connection:
                    await self._beat_over(connection)
            except DISCONNECTIONS as error:
                if not self._is_cut_off:
                    logger.warning("cannot tell the other nodes who is here: %s", told(error))
                self._is_cut_off = True
                self._reply_nothing(self._taken_questions())
            await asyncio.sleep(RETRY_SECONDS)

    async def _beat_over(self, connection: asyncpg.Connection) -> None:
        # Another process may have taken this one for dead meanwhile, or the server have crashed.
        self._attendance.begin_anew()
        try:
            while True:
                questions = self._taken_questions()
                try:
                    if self._is_due(bool(questions)):
                        await self._tell(connection)
                    for question, answer in questions.items():
                        answer.set_result(await self._ask(connection, question))
                finally:
                    self._reply_nothing(questions)
                self._is_cut_off = False
                await self._rest()
        except asyncio.CancelledError:
            await self._leave(connection)
            raise

    def _is_due(self, is_asked: bool) -> bool:
        silence = time.monotonic() - self._said_at
        if self._attendance.is_urgent or silence >= BEAT_SECONDS:
            return True
        has_changed = self._attendance.has_changed or self._counted() != self._said
        return has_changed and (is_asked or silence >= LOOK_SECONDS)

    def _counted(self) -> tuple[int, int]:
        counts = self._attendance.counts()
        return counts.clients, counts.authenticated

    async def _rest(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        if not self._attendance.is_urgent:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._wanted.wait()

    async def _tell(self, connection: asyncpg.Connection) -> None:
        said, telling = self._counted(), self._attendance.take(MOST_ACTS)
        self._said, self._said_at = said, time.monotonic()
        try:
            is_known = await self._attend(connection, said, telling)
        except BaseException:
            self._attendance.begin_anew(telling)
            raise
        if not is_known:
            self._attendance.begin_anew(telling)

    async def _attend(
        self, connection: asyncpg.Connection, said: tuple[int, int], telling: Telling
    ) -> bool:
        """Return whether the database had this process in mind, or has it from now on."""
        self._tellings += 1
        connections = {
            str(id): None if channels is None else sorted(filter(is_text, channels))
            for id, channels in telling.connections.items()
        }
        elsewhere = await connection.fetchval(
            ATTEND,
            self._id,
            self._name,
            self._tellings,
            telling.is_all,
            *said,
            orjson.dumps(telling.channels).decode(),
            [user for user, _ in telling.acts],
            [act for _, act in telling.acts],
            orjson.dumps(connections).decode(),
            timeout=self._timeout_seconds,
        )
        return elsewhere is not None

    async def _ask(
        self, connection: asyncpg.Connection, question: Question
    ) -> asyncpg.Record | None:
        query, about = question
        arguments = () if about is None else (about,)
        return await connection.fetchrow(query, *arguments, timeout=self._timeout_seconds)

    async def _answer(self, question: Question) -> asyncpg.Record | None:
        """Return what the database says, None if it does not do so promptly."""
        answer = self._questions.get(question)
        if self._is_cut_off or (answer is None and len(self._questions) >= MOST_QUESTIONS):
            return None
        if answer is None:
            answer = self._questions[question] = asyncio.get_running_loop().create_future()
            self._wanted.set()
        await asyncio.wait([answer], timeout=ANSWER_SECONDS)
        return answer.result() if answer.done() else None

    def _taken_questions(self) -> dict[Question, asyncio.Future[asyncpg.Record | None]]:
        """Return what is to be answered now; who asks from here on does it anew."""
        questions, self._questions = self._questions, {}
        self._wanted.clear()
        return questions

    def _reply_nothing(
        self, questions: dict[Question, asyncio.Future[asyncpg.Record | None]]
    ) -> None:
        for answer in questions.values():
            if not answer.done():
                answer.set_result(None)

    async def _leave(self, connection: asyncpg.Connection) -> None:
        """Say that all who are here are gone, at once, if the database is there."""
        with suppress(*DISCONNECTIONS):
            async with asyncio.timeout(LEAVE_SECONDS):
                await connection.execute("SELECT brain.leave($1)", self._id)
