"""The operator's own rule of who may hear what, where there is one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import asyncpg
import orjson

from brain.database.connection import DISCONNECTIONS, told
from brain.database.sharing import Shared

# How often it is looked whether there is such a rule, and how long an answer of it holds.
LOOK_SECONDS = 3.0
KEEP_SECONDS = 3.0
MOST_KEPT = 1000

# Of the few connections of the pool, a slow rule leaves some to others.
MOST_AT_ONCE = 2

# So that clients that ask for what fails do not fill the operator's disk with warnings.
BETWEEN_WARNINGS_SECONDS = 1.0

# Any function of that name: one that cannot be asked like this was meant to be, and forbids all.
FIND = """
    SELECT string_agg(oid::text || ' ' || xmin::text, ',' ORDER BY oid) FROM pg_proc
     WHERE proname = 'may_hear' AND pronamespace = to_regnamespace('brain')
"""
ASK = "SELECT c FROM unnest($2::text[]) c WHERE brain.may_hear($1::text::jsonb, c)"

NO_ANSWER = "brain.may_hear does not answer, which means no: %s"

logger = logging.getLogger(__name__)


class Question(NamedTuple):
    claims: str
    """As JSON."""
    channels: frozenset[str]


class Rules:
    """
    Knows whether there is a function `brain.may_hear(claims jsonb, channel text)`, and asks it.

    If it returns true, a channel may be heard. If it returns anything else, fails, or takes longer
    than `timeout_seconds`, the channel may not be heard.
    """

    def __init__(self, timeout_seconds: float, pool: asyncpg.Pool | None = None) -> None:
        self._timeout_seconds = timeout_seconds
        self._pool = pool
        """None until there is one: what is asked before is not allowed."""
        self._is_known = asyncio.Event()
        self._version: str | None = None
        """Names the function as it is defined now; None if there is none."""
        self._turn = asyncio.Semaphore(MOST_AT_ONCE)
        self._shared: Shared[Question, frozenset[str]] = Shared("rule of channels")
        self._kept: dict[Question, tuple[float, frozenset[str]]] = {}
        """Until when an answer holds, by time.monotonic(), and the answer; the oldest first."""
        self._warned_at = -BETWEEN_WARNINGS_SECONDS

    @property
    def is_replaced(self) -> bool:
        """
        Whether the function decides, instead of what a token says.

        As long as the database could not be asked even once, it is taken to be so.
        """
        return self._version is not None or not self._is_known.is_set()

    async def follow(self, pool: asyncpg.Pool) -> None:
        """For ever, look now and then whether there is such a function, and which."""
        self._pool = pool
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def known(self) -> None:
        """Return once it is known whether there is such a function: until then nobody may hear."""
        await self._is_known.wait()

    async def look(self) -> None:
        """Look whether there is such a function; if that fails, what was known before holds."""
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(self._timeout_seconds):
                version = await self._pool.fetchval(FIND)
        except DISCONNECTIONS as error:
            self._warn("cannot look whether there is a rule brain.may_hear: %s", error)
            return
        if version != self._version:
            self._kept.clear()
        self._version = version
        self._is_known.set()

    async def channels(self, claims: Mapping[str, Any], channels: Iterable[str]) -> frozenset[str]:
        """Return those of `channels` that may be heard by whoever has these claims."""
        try:
            question = Question(
                orjson.dumps(dict(claims), option=orjson.OPT_SORT_KEYS).decode(),
                frozenset(channels),
            )
        except TypeError as error:
            self._warn("brain.may_hear cannot be asked: %s", error)
            return frozenset()
        holds_until, answer = self._kept.get(question, (0.0, frozenset[str]()))
        if time.monotonic() < holds_until:
            return answer
        if self._pool is None:
            return frozenset()
        try:
            # Who waits is not kept by a connection that is being given up.
            async with asyncio.timeout(self._timeout_seconds):
                return await self._shared.answer(question, partial(self._ask, self._pool, question))
        except TimeoutError as error:
            self._warn(NO_ANSWER, error)
            return frozenset()

    async def _ask(self, pool: asyncpg.Pool, question: Question) -> frozenset[str]:
        answer: frozenset[str] = frozenset()
        try:
            async with asyncio.timeout(self._timeout_seconds), self._turn:
                rows = await pool.fetch(ASK, question.claims, list(question.channels))
            answer = frozenset(row["c"] for row in rows)
        except DISCONNECTIONS as error:
            self._warn(NO_ANSWER, error)
        self._keep(question, answer)
        return answer

    def _keep(self, question: Question, answer: frozenset[str]) -> None:
        self._kept.pop(question, None)
        self._kept[question] = (time.monotonic() + KEEP_SECONDS, answer)
        if len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]

    def _warn(self, message: str, error: Exception) -> None:
        if time.monotonic() - self._warned_at >= BETWEEN_WARNINGS_SECONDS:
            self._warned_at = time.monotonic()
            logger.warning(message, told(error))
