"""Brings a database up to date, once, whoever asks first."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import asyncpg

import brain
from brain.database.connection import connected, shown, told
from brain.errors import (
    MigrationChanged,
    MigrationError,
    MigrationFailed,
    MigrationsPending,
    MigrationUnknown,
    RightsMissing,
)

FILE_NAME = re.compile(r"(?P<number>\d{4})_(?P<name>[a-z0-9_]+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of SQL; what has been applied is known by its number and its hash."""

    number: int
    name: str
    sql: str = field(repr=False)

    @classmethod
    def read(cls, file: Path) -> Self:
        match = FILE_NAME.fullmatch(file.name)
        if match is None:
            raise MigrationError(f"{file} is not named NNNN_name.sql")
        return cls(int(match["number"]), match["name"], file.read_text(encoding="utf-8"))

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.number:04d}_{self.name}"


@dataclass(frozen=True, slots=True)
class Status:
    """How far a database is: what it has, in order, and what it lacks."""

    applied: tuple[Migration, ...]
    pending: tuple[Migration, ...]


def shipped() -> list[Migration]:
    """Return the migrations of this version of Brain, in order."""
    package = Path(brain.__file__).parent
    in_the_wheel, in_the_repository = package / "migrations", package.parent / "migrations"
    folder = in_the_wheel if in_the_wheel.is_dir() else in_the_repository
    return read_folder(folder)


def read_folder(folder: Path) -> list[Migration]:
    """Return the migrations in `folder`, in order; their numbers must run from 1 without a gap."""
    migrations = [Migration.read(file) for file in sorted(folder.glob("*.sql"))]
    numbers = [migration.number for migration in migrations]
    if not numbers or numbers != list(range(1, len(numbers) + 1)):
        raise MigrationError(f"the files in {folder} do not count from 0001 upwards: {numbers}")
    return migrations


async def status(url: str, migrations: list[Migration]) -> Status:
    """Compare the database with `migrations`, changing nothing."""
    async with connected(url) as connection:
        return await compare(connection, migrations)


async def require_current(url: str, migrations: list[Migration]) -> None:
    """Raise `MigrationsPending` if the database lacks one of `migrations`."""
    pending = (await status(url, migrations)).pending
    if pending:
        raise MigrationsPending(
            f"{shown(url)} lacks {', '.join(map(str, pending))}: run `brain migrate`"
        )


async def migrate(url: str, migrations: list[Migration]) -> list[Migration]:
    """Apply what is pending, each file in a transaction of its own; return what was applied."""
    async with connected(url) as connection:
        pending = (await compare(connection, migrations)).pending
        if not pending:
            return []
        await lock(connection)
        await prepare(connection)
        pending = (await compare(connection, migrations)).pending
        for migration in pending:
            await apply(connection, migration)
        return list(pending)


async def compare(connection: asyncpg.Connection, migrations: list[Migration]) -> Status:
    rows = []
    if await connection.fetchval("SELECT to_regclass('brain.migrations') IS NOT NULL"):
        try:
            rows = await connection.fetch(
                "SELECT number, name, sha256 FROM brain.migrations ORDER BY number"
            )
        except asyncpg.InsufficientPrivilegeError as error:
            raise RightsMissing(not_an_owner(error)) from error
    known = {migration.number: migration for migration in migrations}
    for row in rows:
        migration = known.get(row["number"])
        if migration is None:
            raise MigrationUnknown(
                f"the database has migration {row['number']:04d}_{row['name']}, "
                "which this version of Brain does not know: install a newer one"
            )
        if migration.sha256 != row["sha256"]:
            raise MigrationChanged(
                f"migration {migration} was changed after it had been applied: "
                "restore the file and put the change into a new one"
            )
    applied = {row["number"] for row in rows}
    return Status(
        applied=tuple(m for m in migrations if m.number in applied),
        pending=tuple(m for m in migrations if m.number not in applied),
    )


async def lock(connection: asyncpg.Connection) -> None:
    # Asked again and again: a session that waits for a lock holds a snapshot, for which
    # CREATE INDEX CONCURRENTLY in another one would wait in turn.
    while not await connection.fetchval("SELECT pg_try_advisory_lock(5221, 4)"):  # noqa: ASYNC110
        await asyncio.sleep(0.05)


async def prepare(connection: asyncpg.Connection) -> None:
    try:
        await connection.execute(
            """
            CREATE SCHEMA IF NOT EXISTS brain;
            CREATE TABLE IF NOT EXISTS brain.migrations (
                number       integer     PRIMARY KEY,
                name         text        NOT NULL,
                sha256       text        NOT NULL,
                applied_at   timestamptz NOT NULL DEFAULT now(),
                milliseconds integer     NOT NULL
            );
            """
        )
    except asyncpg.InsufficientPrivilegeError as error:
        raise RightsMissing(
            f"the role may not set up Brain: {told(error)}; an administrator can allow it with "
            "GRANT CREATE ON DATABASE, or run `brain migrate` once as another role"
        ) from error


async def apply(connection: asyncpg.Connection, migration: Migration) -> None:
    started = time.monotonic()
    try:
        async with connection.transaction():
            await connection.execute(migration.sql, timeout=None)
            await connection.execute(
                "INSERT INTO brain.migrations (number, name, sha256, milliseconds) "
                "VALUES ($1, $2, $3, $4)",
                migration.number,
                migration.name,
                migration.sha256,
                round((time.monotonic() - started) * 1000),
            )
    except asyncpg.InsufficientPrivilegeError as error:
        raise RightsMissing(f"migration {migration}: {not_an_owner(error)}") from error
    except asyncpg.PostgresError as error:
        raise MigrationFailed(f"migration {migration} failed: {told(error)}") from error


def not_an_owner(error: asyncpg.InsufficientPrivilegeError) -> str:
    return (
        f"{told(error)}; an administrator can allow it with "
        "CREATE ROLE brain_owner NOLOGIN; GRANT brain_owner TO the role that Brain connects as"
    )
