"""The PostgreSQL that the tests run on, and databases and roles on it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from brain.embedded.binaries import find_binaries
from brain.embedded.server import serve_embedded


@contextmanager
def server_for_tests() -> Iterator[str]:
    """
    Yield the URL of a server to make databases on: a container, or one of our own.

    Of our own, with the programs in the folder BRAIN_TEST_POSTGRES, if that is set. Each process of
    tests has one: roles and transaction ids are those of the whole server.
    """
    folder = os.environ.get("BRAIN_TEST_POSTGRES")
    if folder is None and docker_answers():
        with container() as url:
            yield url
    else:
        binaries = find_binaries(Path(folder) if folder else None)
        with serve_embedded(None, binaries=binaries, superuser=True) as server:
            yield server.url


def docker_answers() -> bool:
    docker = shutil.which("docker")
    if docker is None:
        return False
    return subprocess.run([docker, "version"], capture_output=True).returncode == 0


@contextmanager
def container() -> Iterator[str]:
    # Imported where it is used: importing it looks for a Docker engine.
    from testcontainers.community.postgres import PostgresContainer

    with PostgresContainer("postgres:18-alpine", driver=None) as postgres:
        yield postgres.get_connection_url()


def first_on_all_versions(cases: Iterable[object]) -> list[Any]:
    """
    Return parameters of which the first alone is for the oldest PostgreSQL, too.

    That is for cases that differ by data which no version treats in another way: there one case
    shows that the statements run.
    """
    first, *others = cases
    return [pytest.param(first), *(pytest.param(c, marks=pytest.mark.one_version) for c in others)]


def named(url: str, database: str) -> str:
    """Return `url` with another database."""
    return urlsplit(url)._replace(path=f"/{database}").geturl()


@asynccontextmanager
async def new_database(server: str, template: str = "template1") -> AsyncIterator[str]:
    """Yield the URL of a database that exists for as long as the context lasts."""
    name = f"test_{uuid4().hex}"
    admin = await asyncpg.connect(server)
    try:
        # Copying its files takes half of the time that writing its pages to the WAL does.
        strategy = " STRATEGY file_copy" if admin.get_server_version().major >= 15 else ""
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}{strategy}")
        try:
            yield named(server, name)
        finally:
            try:
                await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
            except asyncpg.InsufficientPrivilegeError:
                # An autovacuum worker, which FORCE may not end for this role; without it, it is.
                await admin.execute(f"DROP DATABASE {name}")
    finally:
        await admin.close()


RELATIONS = """
    SELECT oid::regclass::text FROM pg_class
     WHERE relkind = '{}' AND relnamespace = 'public'::regnamespace
"""
TABLES, SEQUENCES = RELATIONS.format("r"), RELATIONS.format("S")
ROWS = "SELECT coalesce(jsonb_agg(t), '[]') FROM {} t"
INSERT = "INSERT INTO {0} SELECT * FROM jsonb_populate_recordset(NULL::{0}, $1)"
FEEDS = "SELECT name FROM brain.feeds"
UNWATCH = """
    SELECT brain.unwatch(relation) FROM brain.watches WHERE relation = '{}'::regclass
"""


@dataclass(frozen=True)
class ResettableDatabase:
    """A migrated database, and what there is in it from the beginning."""

    url: str
    rows: Mapping[str, str]
    """The rows of each table as a JSON array."""
    sequences: frozenset[str]
    feeds: frozenset[str]

    @classmethod
    async def at(cls, url: str) -> ResettableDatabase:
        connection = await asyncpg.connect(url)
        try:
            rows = {
                table: await connection.fetchval(ROWS.format(table))
                for table in await names(connection, TABLES)
            }
            sequences, feeds = await names(connection, SEQUENCES), await names(connection, FEEDS)
            return cls(url, rows, sequences, feeds)
        finally:
            await connection.close()

    async def reset(self) -> None:
        """Put the rows back, and remove each table, sequence and feed that was added."""
        connection = await asyncpg.connect(self.url)
        try:
            for feed in await names(connection, FEEDS) - self.feeds:
                await connection.execute("SELECT brain.drop_feed($1)", feed)
            for table in await names(connection, TABLES) - self.rows.keys():
                await connection.execute(UNWATCH.format(table))
                await connection.execute(f"DROP TABLE {table} CASCADE")
            for sequence in await names(connection, SEQUENCES) - self.sequences:
                await connection.execute(f"DROP SEQUENCE {sequence}")
            for table, rows in self.rows.items():
                await connection.execute(f"DELETE FROM {table}")
                if rows != "[]":
                    await connection.execute(INSERT.format(table), rows)
        finally:
            await connection.close()


async def names(connection: asyncpg.Connection, query: str) -> frozenset[str]:
    return frozenset(record[0] for record in await connection.fetch(query))


# Databases of the tests in which a role owns something, or has a right.
DATABASES_OF_ROLE = """
    SELECT datname FROM pg_database d
     WHERE datallowconn AND datname LIKE 'test_%'
       AND EXISTS (SELECT FROM pg_shdepend
                    WHERE dbid IN (0, d.oid) AND refclassid = 'pg_authid'::regclass
                      AND refobjid = (SELECT oid FROM pg_roles WHERE rolname = $1))
"""


@asynccontextmanager
async def ordinary_role(
    server: str, *attributes: str
) -> AsyncIterator[tuple[str, asyncpg.Connection]]:
    """Yield a login role that exists for as long as the context lasts, and an administrator."""
    role = f"role_{uuid4().hex}"
    admin = await asyncpg.connect(server)
    try:
        await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret' {' '.join(attributes)}")
        try:
            yield role, admin
        finally:
            for database in await admin.fetch(DATABASES_OF_ROLE, role):
                within = await asyncpg.connect(named(server, database["datname"]))
                await within.execute(f"REASSIGN OWNED BY {role} TO CURRENT_USER")
                await within.execute(f"DROP OWNED BY {role}")
                await within.close()
            await admin.execute(f"DROP ROLE {role}")
    finally:
        await admin.close()


def as_role(url: str, role: str) -> str:
    """Return `url` with another role, made by `ordinary_role`."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{role}:secret@{host}").geturl()
