"""The command line."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

import click
from pydantic import ValidationError

import brain
from brain.app import create_app
from brain.database import migrations
from brain.database.binaries import find_binaries
from brain.database.connection import (
    check_url,
    connected,
    require_own_session,
    shown,
    told_as_errors,
)
from brain.database.embedded import EmbeddedServer, default_folder, running_url, serve_embedded
from brain.database.log import Log
from brain.database.samples import insert_samples
from brain.errors import BrainError, EmbeddedServerError, UsageError
from brain.server import end_on_signals, ignore_signals, listening_sockets, serve
from brain.settings import Settings

Result = TypeVar("Result")

FIRST_STATEMENT = {
    "add two": "INSERT INTO tasks (id) VALUES ('task-123'), ('task-124') ON CONFLICT DO NOTHING",
}
NEXT_STATEMENTS = {
    "start it": "UPDATE tasks SET status='running', updated_at=NOW() WHERE id='task-123'",
    "advance it": "UPDATE tasks SET progress=5 WHERE id='task-123'",
    "complete it": "UPDATE tasks SET status='completed', progress=11 WHERE id='task-123'",
    "fail another": "UPDATE tasks SET status='failed', error='Build failed' WHERE id='task-124'",
}


def main() -> None:
    """Run the command line; whatever goes wrong is one line and an exit status."""
    try:
        sys.exit(commands(standalone_mode=False))
    except BrainError as error:
        told, status = f"brain: {error}", error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        told, status = error.format_message(), error.exit_code
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "brain"
        told = f"brain: {error.format_message()} Try '{command} --help'."
        status = error.exit_code
    except click.Abort:
        sys.exit(128 + signal.SIGINT)
    click.echo(told, err=True)
    sys.exit(status)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(brain.__version__, message="brain %(version)s")
def commands() -> None:
    """Brain pushes PostgreSQL row changes to WebSocket clients.

    What the options set can also come from the environment, under the names in brackets:
    BRAIN_PORT=5222 is --port 5222. What is typed wins, then BRAIN_PORT, then PORT.
    """


def database_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--database-url",
        metavar="URL",
        help="The PostgreSQL to use: postgresql://user:password@host:port/database. Without one, "
        "Brain uses a server of its own, with its data in your home folder.  "
        "[BRAIN_DATABASE_URL or DATABASE_URL]",
    )(command)


@commands.command("serve")
@click.option(
    "--host",
    metavar="NAME",
    help="The name or address to listen on.  [BRAIN_HOST or HOST; default: localhost]",
)
@click.option(
    "--port",
    type=int,
    metavar="NUMBER",
    help="The port to listen on; 0 lets the system choose.  [BRAIN_PORT or PORT; default: 5221]",
)
@database_option
@click.option(
    "--migrate/--no-migrate",
    default=None,
    help="Bring the database up to date first, or refuse to serve one that is not.  "
    "[BRAIN_MIGRATE; default: migrate]",
)
@click.option(
    "--ephemeral",
    is_flag=True,
    default=None,
    help="Give Brain's own PostgreSQL a new database, and throw it away at the end.  "
    "[BRAIN_EPHEMERAL]",
)
@click.option("--samples", is_flag=True, help="Put a few tasks into the database if it has none.")
def serve_command(samples: bool, **flags: Any) -> None:
    """Serve the changes of a database to WebSocket clients."""
    settings = read_settings(**flags)
    if settings.database_url is not None:
        check_url(settings.database_url)
    sockets = listening_sockets(settings.host, settings.port, settings.unread_seconds)
    port = sockets[0].getsockname()[1]
    end_on_signals()
    with database(settings) as (url, psql, server):
        run(url, prepare(url, settings, samples))
        statements = NEXT_STATEMENTS if samples else FIRST_STATEMENT | NEXT_STATEMENTS
        status = serve(
            create_app(url, settings),
            sockets,
            settings,
            announce=partial(announce, settings, port, psql, statements),
            is_pointless=lambda: server is not None and server.has_ended,
        )
        ignore_signals()
        if server and server.has_ended:
            raise EmbeddedServerError(
                f"the PostgreSQL that Brain started on {server.folder} has ended, and so does Brain"
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
    end_on_signals()
    with database(settings, may_share=True) as (url, *_):
        if status or dry_run:
            found = run(url, migrations.status(url, shipped))
            if status:
                for migration in found.applied:
                    click.echo(f"applied  {migration}")
            for migration in found.pending:
                click.echo(f"{'pending' if status else 'would apply'}  {migration}")
            if dry_run and not found.pending:
                click.echo("nothing to apply")
            return
        run(url, require_own_session(url))
        applied = run(url, migrations.migrate(url, shipped))
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


class Database(NamedTuple):
    """What a command works on."""

    url: str
    psql: str
    """The beginning of a psql command for it."""
    server: EmbeddedServer | None = None
    """Set if it was started for this command."""


@contextmanager
def database(settings: Settings, *, may_share: bool = False) -> Iterator[Database]:
    """
    Yield the database of the settings.

    Without a URL in them that is Brain's own server, started for as long as the context lasts,
    unless it `may_share` one that runs already.
    """
    if (url := settings.database_url) is not None:
        yield Database(url, f"psql {shlex.quote(shown(url))}")
        return
    binaries = find_binaries()
    folder = None if settings.ephemeral else default_folder(binaries.major)
    if may_share and folder and (url := running_url(folder)):
        yield Database(url, f"psql {url}")
        return
    with serve_embedded(folder, binaries=binaries) as server:
        psql = "psql" if shutil.which("psql") else shlex.quote(str(server.binaries.psql))
        port = "" if server.port == 5432 else f" -p {server.port}"
        yield Database(server.url, f"{psql} -h localhost{port} -U cecelia cecelia", server)


def run(url: str, work: Coroutine[Any, Any, Result]) -> Result:
    """Do to the database what comes before serving; whatever it answers is one of our errors."""
    with told_as_errors(url):
        return asyncio.run(work)


async def prepare(url: str, settings: Settings, samples: bool) -> None:
    """See that the database at `url` can serve, and bring it up to date."""
    await require_own_session(url)
    if settings.migrate:
        await migrations.migrate(url, migrations.shipped())
    else:
        await migrations.require_current(url, migrations.shipped())
    async with connected(url) as connection:
        # A role that may not do what the listener does would be refused again and again, out of
        # sight: it is told now.
        await Log(connection, settings.database_timeout_seconds).tick()
        if samples:
            await insert_samples(connection)


def announce(settings: Settings, port: int, psql: str, statements: dict[str, str]) -> None:
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
    for what, statement in statements.items():
        lines.append(f'  {what:<12} {psql} -c "{statement}"')
    click.echo("\n".join(lines) + "\n")
