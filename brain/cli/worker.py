"""What a worker of `brain serve` does, forked or as a program of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from brain.app import build_app
from brain.cli.database import Database, database, run
from brain.cli.reloading import AppReload, SettingsReload
from brain.database.preparation import prepare_database
from brain.metrics.files import MetricsFiles
from brain.metrics.metrics import Metrics
from brain.metrics.server import serving_metrics
from brain.process.launcher import Program
from brain.process.log_config import configure_logging
from brain.process.log_formatters import formatter_for
from brain.process.server import serve
from brain.process.signals import dump_stacks_on_signals, end_on_signals
from brain.process.worker import VARIABLE, Worker
from brain.settings import Settings
from brain.system import System, schemas_of

EMBEDDED_URL = "_BRAIN_EMBEDDED_URL"
"""The environment variable with the URL of the server that the supervisor has started."""
METRICS_FOLDER = "_BRAIN_METRICS_FOLDER"
"""That with the folder in which all workers show their metrics."""


def work(
    worker: Worker,
    url: str,
    settings: Settings,
    systems: Sequence[System],
    files: MetricsFiles | None,
    read: Callable[[], Settings],
) -> int:
    """Serve as one of several workers, which show metrics in files; return the exit status."""
    formatter = formatter_for(settings.log_format, has_process=True, worker=worker.number)
    configure_logging(formatter, settings.log_level)
    metrics = Metrics(settings, files, worker.process_number)
    app = build_app(url, settings, systems, warns=worker.number == 1, metrics=metrics)

    def report_leaving() -> None:
        if app.state.failure is None:  # otherwise it ends at once, and not in order
            worker.leaving()

    with serving_metrics(worker.shared, metrics.exposition):
        return serve(
            app,
            worker.sockets,
            settings,
            on_ready=lambda: worker.ready(leaving_seconds(settings)),
            on_stopping=report_leaving,
            should_stop=worker.should_stop,
            should_hurry=worker.should_hurry,
            is_replaced=worker.is_replaced,
            is_worker=True,
            heartbeat=worker.heartbeat,
            reload=AppReload(SettingsReload(settings, read, worker.take_hang_up), app),
        )


def leaving_seconds(settings: Settings) -> float:
    """Return how long it may take to stop."""
    return settings.drain_delay_seconds + settings.drain_seconds + settings.shutdown_seconds


def same_program(url: str, settings: Settings, files: MetricsFiles | None) -> Program:
    """Return the program by which a worker does the same as this process, as it is installed."""
    environment = {EMBEDDED_URL: url} if settings.database_url is None else {}
    if files is not None:
        environment[METRICS_FOLDER] = str(files.folder)
    return Program([sys.executable, *sys.orig_argv[1:]], environment)


def without_metrics(settings: Settings) -> Settings:
    """
    Return the settings of a worker of a supervisor that was started without metrics.

    Each would show itself alone, whichever answers.
    """
    return settings.model_copy(update={"metrics_port": None, "metrics_token": None})


def inherited_worker() -> Worker | None:
    """Return the worker that this process is, if a supervisor has started it as one."""
    if VARIABLE not in os.environ:
        return None
    end_on_signals()
    dump_stacks_on_signals()
    return Worker.from_environment(os.environ)


def serve_as_worker(
    worker: Worker, settings: Settings, systems: Sequence[System], read: Callable[[], Settings]
) -> int:
    """Prepare the database as a first start does, and serve; return the exit status."""
    embedded = os.environ.pop(EMBEDDED_URL, None)
    folder = os.environ.pop(METRICS_FOLDER, None)
    files = None if folder is None else MetricsFiles(Path(folder))
    if files is None:
        settings = without_metrics(settings)
    found = database(settings) if embedded is None else nullcontext(Database(embedded, ""))
    with found as (url, _, _):
        run(url, prepare_database(url, settings, schemas_of(systems)))
        return work(worker, url, settings, systems, files, read)
