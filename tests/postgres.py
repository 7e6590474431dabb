"""
The PostgreSQL that the tests run on, and a command that runs the tests on a given one:

    python -m tests.postgres /usr/lib/postgresql/15/bin pytest
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg

from brain.database.binaries import find_binaries
from brain.database.embedded import serve_embedded


@contextmanager
def server_for_tests() -> Iterator[str]:
    """Yield the URL of a server to make databases on: a given one, a container, or our own."""
    if url := os.environ.get("BRAIN_TEST_DATABASE_URL"):
        yield url
    elif docker_answers():
        with container() as url:
            yield url
    else:
        with serve_embedded(None, superuser=True) as server:
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


def named(url: str, database: str) -> str:
    """Return `url` with another database."""
    return urlsplit(url)._replace(path=f"/{database}").geturl()


@asynccontextmanager
async def new_database(server: str, template: str = "template1") -> AsyncIterator[str]:
    """Yield the URL of a database that exists for as long as the context lasts."""
    name = f"test_{uuid4().hex}"
    admin = await asyncpg.connect(server)
    try:
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield named(server, name)
        finally:
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


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
            for database in await admin.fetch(
                "SELECT datname FROM pg_database WHERE datallowconn AND datname LIKE 'test_%'"
            ):
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


if __name__ == "__main__":
    binaries = find_binaries(Path(sys.argv[1]))
    with serve_embedded(None, binaries=binaries, superuser=True) as given:
        environment = {**os.environ, "BRAIN_TEST_DATABASE_URL": given.url}
        sys.exit(subprocess.run([sys.executable, "-m", *sys.argv[2:]], env=environment).returncode)
