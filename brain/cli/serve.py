"""brain serve"""

from __future__ import annotations

import logging
import os
import shlex
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import click

import brain
from brain.app import build_app
from brain.auth.hosts import hosts_of
from brain.auth.keys import keys_of
from brain.cli.database import database, database_option, read_settings, require_url, run
from brain.cli.reloading import AppReload, SettingsReload
from brain.cli.systems import fits, systems_of, systems_option
from brain.cli.worker import (
    inherited_worker,
    leaving_seconds,
    same_program,
    serve_as_worker,
    work,
)
from brain.database.connection import connected
from brain.database.preparation import prepare_database
from brain.database.tables_of_systems import system_problems
from brain.database.url import outlined
from brain.environment_file import read_environment_file
from brain.errors import EmbeddedServerError
from brain.log_events import (
    NO_SAMPLES,
    READY,
    SUPERUSER,
    SYSTEM_FITS,
    SYSTEM_PROBLEM,
    UNKNOWN_SETTING,
)
from brain.metrics.files import metrics_files
from brain.metrics.metrics import Metrics, is_shown
from brain.metrics.server import serving_metrics
from brain.metrics.workers import supervisor_metrics
from brain.process.log_config import configure_logging
from brain.process.log_formatters import formatter_for
from brain.process.server import serve
from brain.process.service_manager import ServiceManager
from brain.process.signals import (
    HangUps,
    dump_stacks_on_signals,
    end_on_signals,
    ignore_signals,
)
from brain.process.sockets import listening_sockets
from brain.process.supervisor import SLACK_SECONDS, Supervisor
from brain.process.worker import Worker
from brain.settings import Settings, unknown_variables
from brain.system import System, installed_systems, schemas_of
from brain.transport.websocket import require_uvicorn

logger = logging.getLogger(__name__)

IS_SUPERUSER = "SELECT quote_ident(rolname) FROM pg_roles WHERE rolname = current_user AND rolsuper"
TOO_MANY_RIGHTS = (
    "warning: Brain connects as the superuser %s, and needs no such rights: what it needs is in"
    " docs/operating.md, under Rights"
)


@click.command("serve")
@click.option(
    "--host",
    metavar="NAME",
    help="The name or address to listen on.  [BRAIN_HOST or HOST; default: localhost]",
)
@click.option(
    "--port",
    metavar="NUMBER",
    help="The port to listen on; 0 lets the system choose.  [BRAIN_PORT or PORT; default: 5221]",
)
@database_option
@click.option(
    "--migrate/--no-migrate",
    default=None,
    help="Migrate the database first, or refuse to serve one that is not migrated.  "
    "[BRAIN_MIGRATE; default: migrate]",
)
@click.option(
    "--ephemeral",
    is_flag=True,
    default=None,
    help="Give Brain's own PostgreSQL new data, and delete it at the end.  [BRAIN_EPHEMERAL]",
)
@click.option(
    "--workers",
    metavar="NUMBER",
    help="How many processes serve, all on the same port.  [BRAIN_WORKERS; default: 1]",
)
@systems_option
@click.option(
    "--env-file",
    metavar="FILE",
    help="A file with lines BRAIN_X=value, which the environment overrides; SIGHUP has it read "
    "again.  [BRAIN_ENV_FILE]",
)
@click.option(
    "--log-format",
    metavar="FORMAT",
    help="How lines of the log look: text, or json.  [BRAIN_LOG_FORMAT; default: text]",
)
@click.option(
    "--log-level",
    metavar="LEVEL",
    help="The least level that is logged: debug, info, warning or error.  "
    "[BRAIN_LOG_LEVEL; default: info]",
)
@click.option(
    "--samples",
    is_flag=True,
    help="Insert a few rows to look at, into empty tables that Brain created.",
)
def serve_command(samples: bool, **flags: Any) -> None:
    """Serve the changes of a database to WebSocket clients."""
    worker = inherited_worker()
    read = partial(read_settings, **flags)
    settings = read()
    configure_logging(formatter_for(settings.log_format, is_starting=True), settings.log_level)
    require_uvicorn()
    keys_of(settings)
    warn_of_unknown(settings)
    if settings.database_url is not None:
        require_url(settings.database_url)
    installed = installed_systems()
    systems = systems_of(settings, installed)
    if worker is not None:
        sys.exit(serve_as_worker(worker, settings, systems, read))
    sockets = listening_sockets(
        settings.host, settings.port, settings.unread_timeout_seconds, settings.workers
    )
    metrics_sockets = sockets_of_metrics(settings)
    hosts_of(settings)
    port = sockets[0][0].getsockname()[1]
    end_on_signals()
    hang_ups = HangUps()
    dump_stacks_on_signals()
    service = ServiceManager.from_environment(os.environ)
    with database(settings) as (url, psql, server):
        run(url, prepare(url, settings, systems, installed, samples=samples))
        if settings.database_url is not None:
            run(url, warn_of_superuser(url))
        status = serve_database(
            url,
            settings,
            systems,
            sockets,
            service,
            metrics_sockets,
            SettingsReload(settings, read, hang_ups.take, service),
            on_ready=partial(
                announce,
                settings,
                port,
                psql,
                examples_of(systems, samples),
                has_url_option=flags["database_url"] is not None,
                metrics_port=metrics_sockets[0].getsockname()[1] if metrics_sockets else None,
            ),
            should_stop=lambda: server is not None and server.has_ended,
        )
        ignore_signals()
        if server and server.has_ended:
            raise EmbeddedServerError(
                f"the PostgreSQL that Brain started on {server.folder} has ended, and so does Brain"
            )
    sys.exit(status)


def warn_of_unknown(settings: Settings) -> None:
    """Warn of variables that are no settings, in the environment and in the file of settings."""
    for line in unknown_variables(os.environ):
        UNKNOWN_SETTING.log(logger, "%s", line)
    if settings.env_file is not None:
        variables = read_environment_file(settings.env_file)
        for name, variable in variables.items():
            for line in unknown_variables([name], is_file=True):
                place = f"{settings.env_file}, line {variable.line}"
                UNKNOWN_SETTING.log(logger, "%s: %s", place, line)


def serve_database(
    url: str,
    settings: Settings,
    systems: list[System],
    sockets: list[list[socket.socket]],
    service: ServiceManager,
    metrics_sockets: list[socket.socket],
    reload: SettingsReload,
    *,
    on_ready: Callable[[], None],
    should_stop: Callable[[], bool],
) -> int:
    """Serve in this process, or in several workers; return the exit status."""

    def report_ready() -> None:
        on_ready()
        service.ready()

    formatter = formatter_for(settings.log_format, has_process=settings.workers > 1)
    configure_logging(formatter, settings.log_level)
    grace_seconds = leaving_seconds(settings)
    if settings.workers == 1:
        metrics = Metrics(settings)
        app = build_app(url, settings, systems, metrics=metrics)
        with serving_metrics(metrics_sockets, metrics.exposition):
            return serve(
                app,
                sockets[0],
                settings,
                on_ready=report_ready,
                on_stopping=partial(service.stopping, grace_seconds + SLACK_SECONDS),
                should_stop=should_stop,
                should_hurry=should_stop,  # without the database there is nothing to serve
                heartbeat=service.heartbeat,
                reload=AppReload(reload, app),
            )

    with metrics_files() if is_shown(settings) else nullcontext() as files:

        def begin(worker: Worker) -> int:
            return work(worker, url, reload.settings, systems, files, reload.read)

        return Supervisor(
            sockets,
            begin,
            on_ready=report_ready,
            should_stop=should_stop,
            grace_seconds=grace_seconds,
            timeout_seconds=settings.worker_timeout_seconds,
            on_stopping=service.stopping,
            on_reap=files.forget if files else ignore,
            on_change=supervisor_metrics(files).show if files else ignore,
            heartbeat=service.heartbeat,
            program=same_program(url, settings, files),
            shared=metrics_sockets,
            should_forward_hang_up=reload.forward,
        ).run()


def ignore(_: object) -> None:
    """Show nothing."""


def sockets_of_metrics(settings: Settings) -> list[socket.socket]:
    """Bind the port of the metrics, if there is one: all workers share it."""
    if settings.metrics_port is None:
        return []
    (sockets,) = listening_sockets(
        settings.metrics_host,
        settings.metrics_port,
        settings.unread_timeout_seconds,
        variables=("BRAIN_METRICS_HOST", "BRAIN_METRICS_PORT"),
    )
    return sockets


async def prepare(
    url: str,
    settings: Settings,
    systems: Sequence[System],
    installed: Mapping[str, System],
    *,
    samples: bool,
) -> None:
    """Check that the database at `url` can serve, and migrate it."""
    schemas = schemas_of(systems)
    await prepare_database(url, settings, schemas)
    async with connected(url) as connection:
        if not settings.migrate:  # otherwise the migration has warned of the same
            for problem in await system_problems(connection, schemas):
                SYSTEM_PROBLEM.log(logger, "%s", problem)
        for line in await fits(connection, systems, installed):
            SYSTEM_FITS.log(logger, "%s", line)
        if samples:
            for system in systems:
                if reason := await system.insert_samples(connection):
                    NO_SAMPLES.log(logger, "%s", reason, system=system.name)


async def warn_of_superuser(url: str) -> None:
    async with connected(url) as connection:
        if role := await connection.fetchval(IS_SUPERUSER):
            SUPERUSER.log(logger, TOO_MANY_RIGHTS, role, role=role)


def examples_of(systems: list[System], has_samples: bool) -> dict[str, str]:
    """Return the statements to try, by what they do."""
    examples: dict[str, str] = {}
    for system in systems:
        if not has_samples:
            examples |= system.first_examples
        examples |= system.examples
    return examples


def announce(
    settings: Settings,
    port: int,
    psql: str,
    examples: dict[str, str],
    *,
    has_url_option: bool = False,
    metrics_port: int | None = None,
) -> None:
    """Log that Brain is ready; for a person, print what to type next."""
    READY.log(
        logger,
        "Brain %s is ready on %s:%d",
        brain.__version__,
        settings.host,
        port,
        version=brain.__version__,
        host=settings.host,
        port=port,
        workers=settings.workers,
    )
    if settings.log_format == "json":
        return
    name = f"[{settings.host}]" if ":" in settings.host else settings.host
    if name in ("0.0.0.0", "[::]"):
        named = [one for one in settings.allowed_hosts if "*" not in one]
        name = named[0] if named else "localhost"
    lines = [
        f"\nBrain {brain.__version__} is ready. Ctrl-C stops it.\n",
        f"  open      http://{name}:{port}/",
        f"  status    curl http://{name}:{port}/api/brain/status/ws",
    ]
    if metrics_port is not None:
        lines.append(f"  metrics   curl http://localhost:{metrics_port}/metrics")
    if examples:
        lines.append(f"  listen    wscat -c ws://{name}:{port}/ws      (npm install -g wscat)")
        lines.append("\nand, in another terminal, change a row:\n")
        lines += [f'  {what:<12} {psql} -c "{sql}"' for what, sql in examples.items()]
    else:
        where = ""
        if settings.database_url is not None:
            where = "      (with the same BRAIN_DATABASE_URL or DATABASE_URL)"
            if has_url_option:
                where = f" --database-url {shlex.quote(outlined(settings.database_url))}"
        lines.append(f"  watch     brain watch orders --columns id,status{where}")
        lines.append(f"  listen    wscat -c 'ws://{name}:{port}/ws?channel=orders'")
    click.echo("\n".join(lines) + "\n")
