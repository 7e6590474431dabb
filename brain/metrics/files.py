"""The files through which several processes show their metrics as those of one Brain."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import values
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

PREFIX = "brain-metrics-"
LOCK = "lock"
# In memory: a slow disk must not hold up those who write.
MEMORY = Path("/dev/shm")
# Where the library looks for it.
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


@dataclass(frozen=True)
class MetricsFiles:
    """
    A folder with a few files for each process number, which any of the processes reads.

    A process that gets the number of one that has ended goes on with its counters. So they never
    go back, and there are no more files than there were processes at a time.
    """

    folder: Path

    def adopt(self, process_number: int) -> None:
        """Write what this process shows into the files of a number, from now on."""
        # At the end of a session logind may have removed what its user had in memory (RemoveIPC).
        self.folder.mkdir(0o700, exist_ok=True)
        os.environ[VARIABLE] = str(self.folder)
        # The library takes its class of values from there whenever a metric is made.
        values.ValueClass = values.MultiProcessValue(lambda: process_number)  # type: ignore[no-untyped-call]

    def forget(self, process_number: int) -> None:
        """Remove what a process was that has ended; what it has counted stays."""
        mark_process_dead(process_number, str(self.folder))  # type: ignore[no-untyped-call]

    def collector(self) -> FilesCollector:
        """Return what reads the files of all processes."""
        return FilesCollector(self.folder)


class FilesCollector(Collector):
    """Reads the metrics in the files of a folder. Raises `OSError`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        # To the library's own search a folder that cannot be listed is an empty one.
        names = [name for name in os.listdir(self._folder) if name.endswith(".db")]
        paths = [str(self._folder / name) for name in names]
        merged: Iterable[Metric] = MultiProcessCollector.merge(paths)  # type: ignore[no-untyped-call]
        return merged


@contextmanager
def metrics_files() -> Iterator[MetricsFiles]:
    """
    Make a folder for the metrics of this process and those that it will fork, and remove it.

    It removes those that others have left behind, too, who were killed.
    """
    parent = MEMORY if os.access(MEMORY, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    remove_abandoned(parent)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    owner = os.getpid()
    # The lock is that of all processes which inherit it, and ends with the last of them. It has its
    # name once it is locked: before that no other process finds it.
    lock, unnamed = tempfile.mkstemp(dir=folder)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.rename(unnamed, folder / LOCK)
        yield MetricsFiles(folder)
    finally:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_abandoned(parent: Path) -> None:
    """Remove the folders of this user that no process has locked any more."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.stat().st_uid == os.getuid() and is_abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)


def is_abandoned(folder: Path) -> bool:
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
