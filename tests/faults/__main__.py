"""
The fault battery: break Brain, and everything around it, under load.

    python -m tests.faults [--seed 5221] [--short] [--only listener-terminated] [--binaries FOLDER]

No committed change may be lost, duplicated, or reordered within its task. Nothing may be sent that
was rolled back or is private. A client receives a reset where it has to, and nowhere else ("unexp."
counts the others). The clients of the second table misbehave: they have to be disconnected in time
and may not harm others. Every figure that is printed with a bound has to be within it. The exit
status is 0 if all of this holds, and 1 otherwise.
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
from websockets.exceptions import WebSocketException

from tests.faults.battery import HEADING, MISDEEDS, MISDEEDS_HEADING, SCENARIOS, report_line
from tests.faults.figures import Findings
from tests.faults.ledger import LedgerBroken
from tests.faults.link import CannotBePlayed
from tests.faults.replica import Verdict
from tests.faults.scene import Report, ScenarioFailed, Stage, connected
from tests.faults.servers import DidNotStart, own_postgres

LONGEST_SECONDS = 1800.0
"""The time limit of a scenario; the next one runs in any case."""
FAILURES = (ScenarioFailed, LedgerBroken, DidNotStart, OSError, WebSocketException)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    parser.add_argument("--short", action="store_true", help="a few of everything")
    choices = [*SCENARIOS, *MISDEEDS]
    parser.add_argument("--only", choices=choices, action="append", help="may be repeated")
    parser.add_argument("--binaries", type=Path, help="folder of PostgreSQL's programs")
    return parser.parse_args()


async def play(name: str, stage: Stage, *, is_short: bool) -> Report | Findings | None:
    """Run one scenario and print its line; return None if it failed before its end."""
    begun = monotonic()
    scenario = SCENARIOS.get(name) or MISDEEDS[name]
    outcome: Report | Findings | None = None
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            outcome = await (scenario.short if is_short else scenario.full)(stage)
        print(report_line(name, outcome, monotonic() - begun), flush=True)
    except* CannotBePlayed as group:
        print(f"{name:<20}skipped: {reasons(group)}", flush=True)
        outcome = Findings(())
    except* FAILURES as group:
        print(f"{name:<20}FAILED: {reasons(group)}", flush=True)
    return outcome


def reasons(group: BaseExceptionGroup[BaseException]) -> str:
    """Return the texts of the exceptions in a group of groups, each once."""
    return "; ".join(dict.fromkeys(str(error) or repr(error) for error in leaves(group)))


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Return the exceptions in a group of groups."""
    return [
        leaf
        for error in group.exceptions
        for leaf in (leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]


async def play_all(options: argparse.Namespace) -> int:
    """Run the chosen scenarios; return the exit status."""
    begun = monotonic()
    names = options.only or [*SCENARIOS, *MISDEEDS]
    print(f"seed {options.seed}", flush=True)
    outcomes: list[Report | Findings | None] = []
    folder = Path(tempfile.mkdtemp(prefix="brain-faults-"))
    async with own_postgres(options.binaries) as postgres:
        async with connected(postgres.url) as connection:
            version = await connection.fetchval("SHOW server_version")
        for heading, table in ((HEADING, SCENARIOS), (MISDEEDS_HEADING, MISDEEDS)):
            chosen = [name for name in names if name in table]
            if chosen:
                print(heading, flush=True)
            for name in chosen:
                # A seed per scenario: run alone, it does the same as among the others.
                chance = Random(f"{options.seed} {name}")
                stage = Stage(postgres.url, folder, chance, options.binaries)
                outcomes.append(await play(name, stage, is_short=options.short))
    print(total(outcomes))
    print(f"seed {options.seed}, PostgreSQL {version}, {monotonic() - begun:.0f} s")
    if all(outcome is not None and outcome.is_clean for outcome in outcomes):
        rmtree(folder)
        return 0
    print(f"the logs of the Brains are in {folder}")
    return 1


def total(outcomes: Sequence[Report | Findings | None]) -> str:
    played = [outcome for outcome in outcomes if isinstance(outcome, Report)]
    verdict = sum((report.verdict for report in played), start=Verdict())
    counts = ", ".join(f"{count} {what}" for what, count in verdict._asdict().items())
    failed = sum(outcome is None or not outcome.is_clean for outcome in outcomes)
    return (
        f"total: {counts}; {failed} of {len(outcomes)} scenarios failed; "
        f"{sum(report.writes for report in played)} writes, "
        f"{sum(report.deliveries for report in played)} received"
    )


async def main() -> int:
    task = asyncio.current_task()
    assert task is not None
    # So that no process is left running. Ctrl-C cancels the task by default.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await play_all(arguments())


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main()))
