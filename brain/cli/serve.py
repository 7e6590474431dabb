"""brain serve"""

from __future__ import annotations

import logging.config
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click

import brain
from brain.app import create_app
from brain.auth import keys_of
from brain.cli.database import database, database_option, read_settings, run
from brain.database import migrations
from brain.database.connection import check_url, connected, require_own_session
from brain.database.log import Log
from brain.database.samples import insert_samples
from brain.errors import EmbeddedServerError
from brain.server import (
    WORKERS_LOGGING,
    end_on_signals,
    ignore_signals,
    listening_sockets,
    serve,
)
from brain.settings import Settings
from brain.supervisor import Supervisor, Worker
from brain.websocket.protocol import require_uvicorn

FIRST_STATEMENT = {
    "add two": "INSERT INTO tasks (id) VALUES ('task-123'), ('task-124') ON CONFLICT DO NOTHING",
}
NEXT_STATEMENTS = {
    "start it": "UPDATE tasks SET status='running', updated_at=NOW() WHERE id='task-123'",
    "advance it": "UPDATE tasks SET progress=5 WHERE id='task-123'",
    "complete it": "UPDATE tasks SET status='completed', progress=11 WHERE id='task-123'",
    "fail another": "UPDATE tasks SET status='failed', error='Build failed' WHERE id='task-124'",
}


@click.command("serve")
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
@click.option(
    "--workers",
    type=int,
    metavar="NUMBER",
    help="How many processes serve, all on the same port.  [BRAIN_WORKERS; default: 1]",
)
@click.option("--samples", is_flag=True, help="Put a few tasks into the database if it has none.")
def serve_command(samples: bool, **flags: Any) -> None:
    """Serve the changes of a database to WebSocket clients."""
    settings = read_settings(**flags)
    require_uvicorn()
    keys_of(settings)
    if settings.database_url is not None:
        check_url(settings.database_url)
    sockets = listening_sockets(
        settings.host, settings.port, settings.unread_seconds, settings.workers
    )
    port = sockets[0][0].getsockname()[1]
    end_on_signals()
    with database(settings) as (url, psql, server):
        run(url, prepare(url, settings, samples))
        statements = NEXT_STATEMENTS if samples else FIRST_STATEMENT | NEXT_STATEMENTS
        status = serve_database(
            url,
            settings,
            sockets,
            announce=partial(announce, settings, port, psql, statements),
            is_pointless=lambda: server is not None and server.has_ended,
        )
        ignore_signals()
        if server and server.has_ended:
            raise EmbeddedServerError(
                f"the PostgreSQL that Brain started on {server.folder} has ended, and so does Brain"
            )
    sys.exit(status)


def serve_database(
    url: str,
    settings: Settings,
    sockets: list[list[socket.socket]],
    *,
    announce: Callable[[], None],
    is_pointless: Callable[[], bool],
) -> int:
    """Serve in this process, or in several others; return the exit status."""
    if settings.workers == 1:
        app = create_app(url, settings)
        return serve(app, sockets[0], settings, announce=announce, is_pointless=is_pointless)

    def work(worker: Worker) -> int:
        return serve(
            create_app(url, settings, warns=worker.number == 1),
            worker.sockets,
            settings,
            announce=worker.ready,
            is_pointless=worker.is_over,
            is_worker=True,
        )

    logging.config.dictConfig(WORKERS_LOGGING)
    return Supervisor(
        sockets,
        work,
        announce=announce,
        is_pointless=is_pointless,
        grace_seconds=settings.shutdown_seconds,
    ).run()


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
