"""The files through which workers show one Brain."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, values

from brain.metrics.exposition import Exposition
from brain.metrics.files import LOCK, PREFIX, VARIABLE, MetricsFiles, metrics_files
from brain.metrics.followed import Followed


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Let the metrics of later tests be those of one process again."""
    before = values.ValueClass
    yield
    values.ValueClass = before
    os.environ.pop(VARIABLE, None)


class Process:
    """What one process shows, as if it had been forked with this number."""

    def __init__(self, files: MetricsFiles, number: int) -> None:
        files.adopt(number)
        registry = CollectorRegistry()
        self.events = Followed(Counter("events_total", "Events.", registry=registry))
        self.clients = Gauge("clients", "Clients.", registry=registry, multiprocess_mode="livesum")


def shown(files: MetricsFiles) -> dict[str, float]:
    metrics = Exposition(files.collector()).collect()
    return {sample.name: sample.value for metric in metrics for sample in metric.samples}


def test_what_processes_count_is_added_up() -> None:
    with metrics_files() as files:
        one, other = Process(files, 1), Process(files, 2)
        one.events.follow(3)
        other.events.follow(4)
        one.clients.set(10)
        other.clients.set(20)
        assert shown(files) == {"events_total": 7, "clients": 30}


def test_a_process_goes_on_with_the_counters_of_its_number_and_not_with_its_gauges() -> None:
    with metrics_files() as files:
        one, other = Process(files, 1), Process(files, 2)
        one.events.follow(3)
        one.clients.set(10)
        other.clients.set(20)
        files.forget(1)
        assert shown(files) == {"events_total": 3, "clients": 20}
        number_of_files = len(list(files.folder.iterdir()))
        again = Process(files, 1)
        again.events.follow(2)
        assert shown(files) == {"events_total": 5, "clients": 20}
        assert len(list(files.folder.iterdir())) <= number_of_files + 1


def test_the_folder_of_a_process_that_was_killed_is_removed_and_that_of_a_living_one_is_not() -> (
    None
):
    with metrics_files() as living:
        abandoned = living.folder.parent / f"{PREFIX}test-{os.getpid()}"
        abandoned.mkdir()
        (abandoned / LOCK).touch()
        unfinished = living.folder.parent / f"{PREFIX}unfinished-{os.getpid()}"
        unfinished.mkdir()
        try:
            with metrics_files():
                assert living.folder.exists()
                assert unfinished.exists()
                assert not abandoned.exists()
        finally:
            unfinished.rmdir()
    assert not living.folder.exists()


def test_a_folder_that_was_removed_is_there_again_for_the_next_process() -> None:
    with metrics_files() as files:
        Process(files, 1).events.follow(3)
        shutil.rmtree(files.folder)
        with pytest.raises(FileNotFoundError):
            shown(files)
        Process(files, 1).events.follow(2)
        assert shown(files)["events_total"] == 2
        assert Path(files.folder).stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_listed_is_an_error_and_not_an_empty_page() -> None:
    with metrics_files() as files:
        Process(files, 1).events.follow(3)
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                shown(files)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_only_the_user_may_look_into_the_folder() -> None:
    with metrics_files() as files:
        assert Path(files.folder).stat().st_mode & 0o777 == 0o700
