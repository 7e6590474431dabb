"""The command line."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import click
from pydantic import ValidationError

import brain
from brain.app import create_app
from brain.database import migrations
from brain.database.binaries import find_binaries
from brain.database.connection import check_url, connected, require_own_session, shown
from brain.database.embedded import default_folder, running_url, serve_embedded
from brain.database.samples import insert_samples
from brain.errors import BrainError, UsageError
from brain.server import listening_sockets, serve
from brain.settings import Settings

NEXT_STATEMENTS = {
    "start it": "UPDATE tasks SET status='running', updated_at=NOW() WHERE id='task-123'",
    "advance it": "UPDATE tasks SET progress=5 WHERE id='task-123'",
    "complete it": "UPDATE tasks SET status='completed', progress=11 WHERE id='task-123'",
    "fail another": "UPDATE tasks SET status='failed', error='Build failed' WHERE id='task-124'",
}


def main() -> None:
    """Run the command line; what Brain itself reports is one line and an exit status."""
    try:
        commands()
    except BrainError as error:
        click.echo(f"brain: {error}", err=True)
        sys.exit(error.exit_code)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(brain.__version__, message="brain %(version)s")
def commands() -> None:
    """Brain pushes PostgreSQL row changes to WebSocket clients.

    Every option can also be set in the environment, as BRAIN_ and its name in capitals:
    BRAIN_PORT=5222. DATABASE_URL, HOST and PORT are read too.
    """


def database_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--database-url",
        metavar="URL",
        help="The PostgreSQL to follow: postgresql://user:password@host:port/database. "
        "Without one, a server of Brain's own is started, with its data in your home folder.",
    )(command)


@commands.command("serve")
@click.option("--host", help="Where to listen: a name or an address.  [default: localhost]")
@click.option("--port", type=int, help="Where to listen.  [default: 5221]")
@database_option
@click.option(
    "--migrate/--no-migrate",
    default=None,
    help="Bring the database up to date first, or refuse to serve one that is not.  "
    "[default: migrate]",
)
@click.option(
    "--ephemeral",
    is_flag=True,
    default=None,
    help="Throw the data of Brain's own PostgreSQL away at the end.",
)
@click.option("--samples", is_flag=True, help="Put a few tasks into a database that has none.")
def serve_command(samples: bool, **flags: Any) -> None:
    """Serve the changes of a database to WebSocket clients."""
    settings = read_settings(**flags)
    if settings.database_url:
        check_url(settings.database_url)
    sockets = listening_sockets(settings.host, settings.port, settings.unread_seconds)
    port = sockets[0].getsockname()[1]
    with ending_on_sigterm(), database(settings) as (url, psql):
        asyncio.run(prepare(url, settings, samples))
        status = serve(
            create_app(url, settings), sockets, settings, partial(announce, settings, port, psql)
        )
    sys.exit(status)


@commands.command("migrate")
@database_option
@click.option("--status", is_flag=True, help="Only say what has been applied and what has not.")
@click.option("--dry-run", is_flag=True, help="Only say what would be applied.")
def migrate_command(status: bool, dry_run: bool, **flags: Any) -> None:
    """Bring a database up to date."""
    settings = read_settings(**flags)
    shipped = migrations.shipped()
    with ending_on_sigterm(), database(settings, may_share=True) as (url, _):
        if status or dry_run:
            found = asyncio.run(migrations.status(url, shipped))
            if status:
                for migration in found.applied:
                    click.echo(f"applied  {migration}")
            for migration in found.pending:
                click.echo(f"{'pending' if status else 'would apply'}  {migration}")
            if dry_run and not found.pending:
                click.echo("nothing to apply")
            return
        asyncio.run(require_own_session(url))
        applied = asyncio.run(migrations.migrate(url, shipped))
        for migration in applied:
            click.echo(f"applied  {migration}")
        click.echo(f"{shown(url)} is up to date")


def read_settings(**flags: Any) -> Settings:
    """Return the settings from the environment, under what was typed."""
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"]).upper().removeprefix("BRAIN_")
        raise UsageError(f"the setting {name} is wrong: {first['msg']}") from error


@contextmanager
def database(settings: Settings, *, may_share: bool = False) -> Iterator[tuple[str, str]]:
    """
    Yield the database's URL and the beginning of a psql command for it.

    Without a URL in the settings that is Brain's own server, started for as long as the context
    lasts, unless it `may_share` one that runs already.
    """
    if settings.database_url:
        yield settings.database_url, f"psql {shlex.quote(shown(settings.database_url))}"
        return
    binaries = find_binaries()
    folder = None if settings.ephemeral else default_folder(binaries.major)
    if may_share and folder and (url := running_url(folder)):
        yield url, f"psql {url}"
        return
    with serve_embedded(folder, binaries=binaries) as server:
        psql = "psql" if shutil.which("psql") else shlex.quote(str(server.binaries.psql))
        port = "" if server.port == 5432 else f" -p {server.port}"
        yield server.url, f"{psql} -h localhost{port} -U cecelia cecelia"


async def prepare(url: str, settings: Settings, samples: bool) -> None:
    """See that the database at `url` can serve, and bring it up to date."""
    await require_own_session(url)
    if settings.migrate:
        await migrations.migrate(url, migrations.shipped())
    else:
        await migrations.require_current(url, migrations.shipped())
    if samples:
        async with connected(url) as connection:
            await insert_samples(connection)


def announce(settings: Settings, port: int, psql: str) -> None:
    """Say that Brain is ready, and what to type next."""
    name = f"[{settings.host}]" if ":" in settings.host else settings.host
    host = "localhost" if name in ("0.0.0.0", "[::]") else name
    lines = [
        f"\nBrain {brain.__version__} is ready. Ctrl-C stops it.\n",
        f"  look at it   http://{host}:{port}/",
        f"  ask it       curl http://{host}:{port}/api/brain/status/ws",
        f"  hear it      wscat -c ws://{host}:{port}/ws      (npm install -g wscat)",
        "\nand, in another terminal, change a task:\n",
    ]
    for what, statement in NEXT_STATEMENTS.items():
        lines.append(f'  {what:<12} {psql} -c "{statement}"')
    click.echo("\n".join(lines) + "\n")


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Leave all contexts on SIGTERM too, wherever it comes while no server handles it."""

    def leave(*_: object) -> None:
        sys.exit(128 + signal.SIGTERM)

    former = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
