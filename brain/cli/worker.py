"""What a worker of `brain serve` does, forked or as a program of its own."""

from __future__ import annotations

import logging.config
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from brain.app import build_app
from brain.cli.database import Database, database, run
from brain.database.preparation import prepare_database
from brain.process.launcher import Program
from brain.process.log_config import WORKERS_LOGGING
from brain.process.server import serve
from brain.process.signals import dump_stacks_on_signals, end_on_signals
from brain.process.worker import VARIABLE, Worker
from brain.settings import Settings
from brain.system import System, schemas_of

EMBEDDED_URL = "_BRAIN_EMBEDDED_URL"
"""The environment variable with the URL of the server that the supervisor has started."""


def work(worker: Worker, url: str, settings: Settings, systems: Sequence[System]) -> int:
    """Serve as one of several workers; return the exit status."""
    app = build_app(url, settings, systems, warns=worker.number == 1)

    def report_leaving() -> None:
        if app.state.failure is None:  # otherwise it ends at once, and not in order
            worker.leaving()

    return serve(
        app,
        worker.sockets,
        settings,
        on_ready=worker.ready,
        on_stopping=report_leaving,
        should_stop=worker.should_stop,
        should_hurry=worker.should_hurry,
        is_replaced=worker.is_replaced,
        is_worker=True,
        heartbeat=worker.heartbeat,
    )


def same_program(url: str, settings: Settings) -> Program:
    """Return the program by which a worker does the same as this process, as it is installed."""
    has_server = settings.database_url is None
    return Program([sys.executable, *sys.orig_argv[1:]], {EMBEDDED_URL: url} if has_server else {})


def inherited_worker() -> Worker | None:
    """Return the worker that this process is, if a supervisor has started it as one."""
    if VARIABLE not in os.environ:
        return None
    end_on_signals()
    dump_stacks_on_signals()
    return Worker.from_environment(os.environ)


def serve_as_worker(worker: Worker, settings: Settings, systems: Sequence[System]) -> int:
    """Prepare the database as a first start does, and serve; return the exit status."""
    logging.config.dictConfig(WORKERS_LOGGING)
    embedded = os.environ.pop(EMBEDDED_URL, None)
    found = database(settings) if embedded is None else nullcontext(Database(embedded, ""))
    with found as (url, _, _):
        run(url, prepare_database(url, settings, schemas_of(systems)))
        return work(worker, url, settings, systems)
