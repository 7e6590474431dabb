"""What is examined, and what several checks share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import asyncpg

from brain.database.connection import DATABASE_ERRORS, close, connect
from brain.database.url import shown
from brain.doctor.finding import NotChecked
from brain.errors import BrainError
from brain.settings import Settings

CONNECT_SECONDS = 5.0
CLOSE_SECONDS = 3.0
STATEMENT_SECONDS = 4
NO_DATABASE = NotChecked(
    "no database is known", "pass --database-url, or set BRAIN_DATABASE_URL as brain serve has it"
)
NO_URL = NotChecked(
    "no address of Brain is known",
    "pass --url with the address that clients use, as https://brain.example.org",
)
NO_TOKEN = NotChecked("there is no token", "pass --token-file or set BRAIN_TOKEN")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What `brain doctor` was asked to examine."""

    settings: Settings
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    setting_errors: Sequence[str] = ()
    """Settings that are wrong, and in place of which the default is used."""
    database_url: str | None = field(default=None, repr=False)
    url: str | None = None
    token: str | None = field(default=None, repr=False)
    origin: str | None = None
    channels: Sequence[str] = ()
    where: dict[str, Any] | None = None
    metrics_url: str | None = field(default=None, repr=False)


class Examination:
    """One run of the checks, with what they share."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.settings = request.settings
        self.shared: dict[str, Any] = {}
        """What a check has found and later ones need, by a name."""
        self.resources = AsyncExitStack()
        """What is open until the examination ends."""
        self._connection: asyncpg.Connection | None = None
        self._database_problem: NotChecked | None = None
        """Why there is no use in asking the database again."""
        self._url_problem: NotChecked | None = None
        """Why there is no use in going on to Brain."""

    @cached_property
    def database_url(self) -> str:
        """The URL of the database. Raises `NotChecked`."""
        if self.request.database_url is None:
            raise NO_DATABASE
        return self.request.database_url

    @property
    def url(self) -> str:
        """The address that clients use, without a slash at its end. Raises `NotChecked`."""
        if self.request.url is None:
            raise NO_URL
        if self._url_problem is not None:
            raise self._url_problem
        return self.request.url.rstrip("/")

    @property
    def token(self) -> str:
        """The token. Raises `NotChecked`."""
        if self.request.token is None:
            raise NO_TOKEN
        return self.request.token

    async def open_connection(self) -> asyncpg.Connection:
        """Connect to the database. Raises `BrainError`, or TimeoutError."""
        async with asyncio.timeout(CONNECT_SECONDS):
            connection = await connect(self.database_url, keeps_statements=False)
            try:
                await connection.execute(f"SET statement_timeout = '{STATEMENT_SECONDS}s'")
            except BaseException:
                connection.terminate()
                raise
        self._connection = connection
        return connection

    async def connection(self) -> asyncpg.Connection:
        """Return a connection to the database. Raises `NotChecked`."""
        url = self.database_url
        if self._database_problem is not None:
            raise self._database_problem
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        try:
            return await self.open_connection()
        except (*DATABASE_ERRORS, BrainError, TimeoutError):
            self.give_up_database("the database cannot be reached", "see database.reachable")
            raise NotChecked(f"no connection to {shown(url)}", "see database.reachable") from None

    def give_up_database(self, text: str, way_out: str) -> None:
        """Have all later checks of the database say that they were not made, and why."""
        self._database_problem = NotChecked(text, way_out)

    def give_up_url(self, id: str) -> None:
        """Have all later checks of the way to Brain say that one failed before."""
        self._url_problem = NotChecked("Brain is not reached through --url", f"see {id}")

    async def migrated(self) -> asyncpg.Connection:
        """Return a connection to a database that has Brain's schema. Raises `NotChecked`."""
        connection = await self.connection()
        if not await connection.fetchval("SELECT to_regclass('brain.schema_versions') IS NOT NULL"):
            raise NotChecked("the database has no schema brain", "see database.migrations")
        return connection

    def drop_connection(self) -> None:
        """Forget the connection: a check has left a query running in it."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        """Close what is open, within a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.resources.aclose()
        if self._connection is not None:
            await close(self._connection)
            self._connection = None
