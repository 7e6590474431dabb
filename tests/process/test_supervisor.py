"""The supervisor with workers that serve nothing."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.end_to_end.brain import Ended, ended

# A worker does what the test says until the supervisor, which lists what it sees, is to stop.
PROGRAM = """
import faulthandler, logging, os, signal, sys, time
from brain.process.supervisor import Supervisor

WORKERS = {workers}
done = {done!r}

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # at once, among other processes

def hang():
    while True:
        time.sleep(1)

def live(worker):
    while not worker.should_stop():
        worker.heartbeat.give()
        time.sleep(0.01)
    return 0

def work(worker):
    {work}
    return live(worker)

def changed(statistics):
    say(*statistics)

def should_stop():
    return {should_stop}

faulthandler.enable()
logging.basicConfig(level=logging.INFO)
supervisor = Supervisor(
    [[] for _ in range(WORKERS)],
    work,
    on_ready=lambda: say("ready"),
    on_stopping=lambda: say("stopping"),
    on_reap=lambda number: say("reaped", number),
    on_change=changed,
    should_stop=should_stop,
    grace_seconds=1,
    timeout_seconds={timeout_seconds},
)
sys.exit(supervisor.run())
"""


async def supervised(
    work: str,
    should_stop: str,
    *,
    workers: int = 2,
    timeout_seconds: float = 20,
    done: Path | None = None,
) -> Ended:
    program = PROGRAM.format(
        workers=workers,
        work=work,
        should_stop=should_stop,
        timeout_seconds=timeout_seconds,
        done=str(done),
    )
    return await ended((sys.executable, "-c", program), patience_seconds=100)


async def test_a_worker_that_hangs_writes_its_stacks_and_is_restarted(
    tmp_path: Path,
) -> None:
    status, stdout, stderr = await supervised(
        "worker.ready(); worker.number == 2 and not os.path.exists(done)"
        " and (open(done, 'w'), hang())",
        "supervisor.statistics()[1:4] == (2, 0, 1)",
        timeout_seconds=1,
        done=tmp_path / "done",
    )

    assert status == 0, stderr
    assert re.search(r"worker 2 \(process \d+\) gave no heartbeat for \d s, and is killed", stderr)
    assert "Fatal Python error: Aborted" in stderr
    assert "in hang" in stderr
    assert re.search(r"worker 2 \(process \d+\) hung, and was killed; next try in", stderr)
    assert "reaped 2" in stdout.partition("stopping")[0]


async def test_a_worker_that_is_suspended_is_killed_though_it_writes_no_stacks(
    tmp_path: Path,
) -> None:
    status, _, stderr = await supervised(
        "worker.ready(); worker.number == 1 and not os.path.exists(done)"
        " and (open(done, 'w'), os.kill(os.getpid(), signal.SIGSTOP))",
        "supervisor.statistics()[1:4] == (2, 0, 1)",
        timeout_seconds=1,
        done=tmp_path / "done",
    )

    assert status == 0, stderr
    assert re.search(r"worker 1 \(process \d+\) hung, and was killed; next try in", stderr)


async def test_a_worker_has_the_lowest_number_that_no_living_one_has(tmp_path: Path) -> None:
    """So that what is kept by number does not grow, however often workers die."""
    status, stdout, stderr = await supervised(
        "worker.ready(); say('started', worker.number, worker.process_number);"
        " worker.number == 2 and not os.path.exists(done) and (open(done, 'w'), sys.exit(1))",
        "supervisor.statistics()[1:3] == (3, 1)",
        workers=3,
        done=tmp_path / "done",
    )

    assert status == 0, stderr
    began = sorted(line for line in stdout.splitlines() if line.startswith("started"))
    assert began == ["started 1 1", "started 2 2", "started 2 2", "started 3 3"]
    reaped = [line for line in stdout.splitlines() if line.startswith("reaped")]
    assert reaped[0] == "reaped 2"
    assert sorted(reaped[1:]) == ["reaped 1", "reaped 2", "reaped 3"]
