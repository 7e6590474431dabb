"""The supervisor with workers that serve nothing."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.end_to_end.brain import Ended, ended

# A worker does what the test says until the supervisor, which lists what it sees, is to stop.
PROGRAM = """
import faulthandler, logging, os, signal, sys, time
from brain.process import worker_process
from brain.process.supervisor import SLACK_SECONDS, Supervisor

WORKERS = {workers}
worker_process.STEADY_SECONDS = {steady_seconds}
done = {done!r}

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # at once, among other processes

def hang():
    while True:
        time.sleep(1)

def stay(worker):
    while True:
        worker.heartbeat.give()
        time.sleep(0.01)

def live(worker):
    while not worker.should_stop():
        worker.heartbeat.give()
        time.sleep(0.01)
    worker.leaving()
    while {drains}:
        worker.heartbeat.give()
        time.sleep(0.01)
    return 0

def begun():  # how many workers have
    return os.path.getsize(done)

def note(name):
    open(done + name, "w").close()

def is_noted(name):
    return os.path.exists(done + name)

def wait(worker, name):
    while not is_noted(name):
        worker.heartbeat.give()
        time.sleep(0.01)

def nth():  # how many workers have begun, this one included
    with open(done, "ab") as file:
        file.write(b".")
        return file.tell()

def work(worker):
    {work}
    return live(worker)

def replace():
    os.kill(os.getpid(), signal.SIGUSR2)

def stop_one():
    next(iter(supervisor._processes.values()))[1].send(signal.SIGTERM)

asked = []
def once(action):
    if not asked:
        asked.append(True)
        action()

def changed(statistics):
    say(*statistics)

def should_stop():
    statistics = supervisor.statistics()
    {at_each_look}
    return {should_stop}

faulthandler.enable()
logging.basicConfig(level=logging.INFO)
supervisor = Supervisor(
    [[] for _ in range(WORKERS)],
    work,
    on_ready=lambda: say("ready"),
    on_stopping=lambda seconds: say("stopping"),
    on_reap=lambda number: say("reaped", number),
    on_change=changed,
    should_stop=should_stop,
    grace_seconds={grace_seconds},
    timeout_seconds={timeout_seconds},
)
sys.exit(supervisor.run())
"""


# Long enough for a busy machine.
HANGS_SECONDS = 5.0


async def supervised(
    work: str,
    should_stop: str,
    *,
    at_each_look: str = "pass",
    workers: int = 2,
    timeout_seconds: float = 20,
    drains: str = "False",
    grace_seconds: float = 1,
    steady_seconds: float = 0.2,
    done: Path | None = None,
) -> Ended:
    program = PROGRAM.format(
        workers=workers,
        drains=drains,
        grace_seconds=grace_seconds,
        steady_seconds=steady_seconds,
        work=work,
        at_each_look=at_each_look,
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
        "statistics.up == 2 and statistics.hung >= 1",
        timeout_seconds=HANGS_SECONDS,
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
        "statistics.up == 2 and statistics.hung >= 1",
        timeout_seconds=HANGS_SECONDS,
        done=tmp_path / "done",
    )

    assert status == 0, stderr
    assert re.search(r"worker 1 \(process \d+\) hung, and was killed; next try in", stderr)


async def test_a_worker_has_the_lowest_number_that_no_living_one_has(tmp_path: Path) -> None:
    """So that what is kept by number does not grow, however often workers die."""
    status, stdout, stderr = await supervised(
        "worker.ready(); say('started', worker.number, worker.process_number);"
        " worker.number == 2 and not os.path.exists(done) and (open(done, 'w'), sys.exit(1))",
        "statistics[1:3] == (3, 1)",
        workers=3,
        done=tmp_path / "done",
    )

    assert status == 0, stderr
    began = sorted(line for line in stdout.splitlines() if line.startswith("started"))
    assert began == ["started 1 1", "started 2 2", "started 2 2", "started 3 3"]
    reaped = [line for line in stdout.splitlines() if line.startswith("reaped")]
    assert reaped[0] == "reaped 2"
    assert sorted(reaped[1:]) == ["reaped 1", "reaped 2", "reaped 3"]


def ups(stdout: str) -> list[int]:
    """Return how many workers were ready, at each change from the time when all were."""
    lines = stdout.partition("ready\n")[2].partition("stopping\n")[0].splitlines()
    return [int(line.split()[1]) for line in lines if not line.startswith("reaped")]


async def test_workers_are_replaced_one_after_the_other_and_none_is_missing_meanwhile(
    tmp_path: Path,
) -> None:
    status, stdout, stderr = await supervised(
        "worker.ready()",
        "statistics == (3, 3, 0, 0, 3) and supervisor._replacement is None",
        at_each_look="statistics.up == 3 and once(replace)",
        workers=3,
        done=tmp_path / "done",
    )

    assert status == 0, stderr
    assert set(ups(stdout)) == {3, 4}
    assert re.findall(r"worker (\d) \(process \d+\) has drained", stderr) == ["1", "2", "3"]
    assert "all workers are replaced" in stderr
    # The successor of the first has the lowest free number, that of the second the first's, ...
    before, _, _ = stdout.partition("stopping")
    assert re.findall(r"reaped (\d)", before) == ["1", "2", "3"]


async def test_a_successor_that_fails_ends_the_replacement_and_the_workers_go_on(
    tmp_path: Path,
) -> None:
    status, stdout, stderr = await supervised(
        "nth() == 4 and sys.exit(7); worker.ready()",
        "'fourth' in asked and statistics.up == 2",
        at_each_look="statistics.up == 2 and once(replace);"
        " statistics.replaced == 1 and supervisor._replacement is None and asked.append('fourth')",
        done=tmp_path / "done",
    )

    assert status == 0, stderr
    assert re.search(
        r"ERROR.*worker 2 is not replaced: its successor \(process \d+\) ended with status 1; the"
        " replacement stops, and the other workers go on as they are",
        stderr,
    )
    assert "next try" not in stderr
    assert set(ups(stdout)) == {2, 3}
    assert (tmp_path / "done").stat().st_size == 4


async def test_a_successor_that_ends_soon_after_it_was_ready_ends_the_replacement(
    tmp_path: Path,
) -> None:
    """Though the one before it still drains: what is installed would end all of them."""
    status, _, stderr = await supervised(
        "nth() == 3 and (worker.ready(), wait(worker, 'leaving'), sys.exit(7)); worker.ready()",
        "statistics == (2, 2, 1, 0, 1) and supervisor._replacement is None",
        at_each_look="statistics.up == 2 and once(replace); statistics.died and note('died')",
        drains="note('leaving') or not is_noted('died')",
        grace_seconds=60,
        steady_seconds=60,
        done=tmp_path / "done",
    )

    assert status == 0, stderr
    assert re.search(
        r"ERROR.*worker 1 is not replaced: its successor \(process \d+\) ended with status 1;",
        stderr,
    )
    assert re.findall(r"worker (\d) \(process \d+\) is replaced", stderr) == ["1"]
    assert "all workers are replaced" not in stderr
    # Two at first, the successor, and the one that took its place.
    assert (tmp_path / "done").stat().st_size == 4


async def test_a_successor_is_stopped_alone_and_the_replacement_stops(tmp_path: Path) -> None:
    status, _, stderr = await supervised(
        "nth() == 3 and (worker.ready(), worker.leaving(), wait(worker, 'up')); worker.ready()",
        "is_noted('up') and statistics.up == 2",
        at_each_look="statistics.up == 2 and once(replace);"
        " begun() == 4 and statistics.up >= 3 and note('up')",
        steady_seconds=60,
        done=tmp_path / "done",
    )

    assert status == 0, stderr
    assert "worker 1 is not replaced: its successor was stopped; the replacement stops" in stderr
    assert re.search(r"worker 1 \(process \d+\) was stopped", stderr)


async def test_a_worker_drains_for_as_long_as_it_has_reported(tmp_path: Path) -> None:
    """It may have begun with other settings than the supervisor."""
    status, _, stderr = await supervised(
        "worker.ready(60)",
        "statistics == (1, 1, 0, 0, 1) and supervisor._replacement is None",
        at_each_look="statistics.up == 1 and once(replace)",
        # Longer than the supervisor would give it.
        drains="globals().setdefault('began', time.monotonic())"
        " > time.monotonic() - 2 - SLACK_SECONDS",
        workers=1,
        done=tmp_path / "done",
    )

    assert status == 0, stderr
    assert re.search(r"worker 1 \(process \d+\) has drained", stderr)
    assert "killed" not in stderr


async def test_workers_that_are_to_be_replaced_again_meanwhile_are_replaced_again(
    tmp_path: Path,
) -> None:
    """So that all have begun after the last signal."""
    status, stdout, stderr = await supervised(
        "nth(); worker.ready()",
        "statistics == (2, 2, 0, 0, 3)",
        at_each_look="statistics.up == 2 and once(replace);"
        " statistics.up == 3 and len(asked) == 1 and (asked.append(2), replace(), replace())",
        done=tmp_path / "done",
    )

    assert status == 0, stderr
    assert set(ups(stdout)) == {2, 3}
    assert re.findall(r"worker (\d) \(process \d+\) has drained", stderr) == ["1", "1", "2"]


async def test_a_worker_that_dies_while_its_successor_begins_is_replaced_by_it(
    tmp_path: Path,
) -> None:
    status, _, stderr = await supervised(
        "begun = nth(); begun == 3 and (os.kill(int(open(done + '1').read()), 9), time.sleep(1));"
        " worker.number == 1 and begun < 3 and open(done + '1', 'w').write(str(os.getpid()));"
        " worker.ready()",
        "statistics == (2, 2, 1, 0, 1) and supervisor._replacement is None",
        at_each_look="statistics.up == 2 and once(replace)",
        done=tmp_path / "done",
    )

    assert status == 0, stderr
    assert re.search(r"worker 1 \(process \d+\) was killed by signal 9", stderr)
    assert "all workers are replaced" in stderr
    assert (tmp_path / "done").stat().st_size == 4


async def test_a_signal_to_stop_ends_a_replacement_with_everything_else(tmp_path: Path) -> None:
    status, stdout, stderr = await supervised(
        "nth() < 3 and worker.ready()",
        "False",
        at_each_look="statistics.up == 2 and once(replace);"
        " os.path.exists(done) and os.path.getsize(done) == 3 and os.kill(os.getpid(), 15)",
        done=tmp_path / "done",
    )

    assert status == 0, stderr
    assert sorted(re.findall(r"reaped (\d)", stdout)) == ["1", "2", "3"]
    assert "next try" not in stderr
    assert "not replaced" not in stderr


async def test_a_worker_that_does_not_drain_in_time_is_killed(tmp_path: Path) -> None:
    status, _, stderr = await supervised(
        "nth() == 1 and (worker.ready(), stay(worker)); worker.ready()",
        "statistics == (1, 1, 0, 0, 1) and supervisor._replacement is None",
        at_each_look="statistics.up == 1 and once(replace)",
        workers=1,
        done=tmp_path / "done",
    )

    assert status == 0, stderr
    assert re.search(r"worker 1 \(process \d+\) was killed by signal 9 before it had", stderr)
    assert "all workers are replaced" in stderr


async def test_a_worker_that_is_signalled_alone_drains_beside_the_next_one(tmp_path: Path) -> None:
    """So that connections to its sockets do not wait until it has taken leave of its clients."""
    status, stdout, stderr = await supervised(
        "nth(); worker.ready()",
        "statistics == (2, 2, 0, 0, 1)",
        at_each_look="statistics.up == 2 and once(stop_one); statistics.up == 3 and note('up')",
        drains="not is_noted('up')",
        grace_seconds=60,
        done=tmp_path / "done",
    )

    assert status == 0, stderr
    assert set(ups(stdout)) == {2, 3}
    assert re.search(r"worker 1 \(process \d+\) was stopped", stderr)
    assert "next try" not in stderr
