"""
The fault battery: Brain under load, while everything around it and it itself is broken.

    python -m tests.faults [--seed 5221] [--short] [--only listener-terminated] [--binaries FOLDER]

Nothing committed may be lost, told twice, told in another order than it was committed in for one
task, or told although it was rolled back or is not to be told; and a client is reset where it has
to be and nowhere else ("unexp." counts the others). The exit status is 1 unless all of it is 0.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random, SystemRandom
from shutil import rmtree
from time import monotonic

import uvloop

from tests.faults.battery import HEADING, SCENARIOS, told
from tests.faults.ledger import LedgerBroken
from tests.faults.replica import Verdict
from tests.faults.scene import Report, ScenarioFailed, Stage, connected
from tests.faults.servers import DidNotStart, own_postgres


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    parser.add_argument("--short", action="store_true", help="a few of everything")
    parser.add_argument("--only", choices=SCENARIOS, action="append", help="may be repeated")
    parser.add_argument("--binaries", type=Path, help="folder of PostgreSQL's programs")
    return parser.parse_args()


async def play(name: str, stage: Stage, *, is_short: bool) -> Report | None:
    """Play one scenario and print its line; return None if it could not be played to its end."""
    begun = monotonic()
    scenario = SCENARIOS[name]
    try:
        report = await (scenario.short if is_short else scenario.full)(stage)
    except* (ScenarioFailed, LedgerBroken, DidNotStart, TimeoutError) as group:
        failures = list(leaves(group))
        print(
            f"{name:<20}FAILED: {'; '.join(dict.fromkeys(str(e) or repr(e) for e in failures))}",
            flush=True,
        )
        report = None
    if report is not None:
        print(told(name, report, monotonic() - begun), flush=True)
    return report


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Return the exceptions in a group of groups."""
    return [
        leaf
        for error in group.exceptions
        for leaf in (leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]


async def play_all(options: argparse.Namespace) -> int:
    """Play what was chosen; return the exit status."""
    begun = monotonic()
    names = options.only or list(SCENARIOS)
    print(f"seed {options.seed}\n{HEADING}", flush=True)
    reports = []
    folder = Path(tempfile.mkdtemp(prefix="brain-faults-"))
    async with own_postgres(options.binaries) as postgres:
        async with connected(postgres.url) as connection:
            version = await connection.fetchval("SHOW server_version")
        for name in names:
            # Its own seed, so that one scenario alone does what it does among the others.
            chance = Random(f"{options.seed} {name}")
            stage = Stage(postgres.url, folder, chance, options.binaries)
            reports.append(await play(name, stage, is_short=options.short))
    print(total(reports))
    print(f"seed {options.seed}, PostgreSQL {version}, {monotonic() - begun:.0f} s")
    if all(report and report.verdict.is_clean for report in reports):
        rmtree(folder)
        return 0
    print(f"what the Brains said is in {folder}")
    return 1


def total(reports: Sequence[Report | None]) -> str:
    played = [report for report in reports if report is not None]
    verdict = sum((report.verdict for report in played), start=Verdict())
    counts = ", ".join(f"{count} {what}" for what, count in verdict._asdict().items())
    return (
        f"total: {counts}; {len(reports) - len(played)} of {len(reports)} scenarios failed; "
        f"{sum(report.writes for report in played)} writes, "
        f"{sum(report.deliveries for report in played)} heard"
    )


async def main() -> int:
    task = asyncio.current_task()
    assert task is not None
    # So that nothing is left running; Ctrl-C does the same by itself.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await play_all(arguments())


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main()))
