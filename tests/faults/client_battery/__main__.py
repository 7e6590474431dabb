"""
What clients make of the same orders, whatever happens to their connections.

    python -m tests.faults.client_battery [--first 1] [--seeds 50] [--only python/killed]

In each scene and seed random transactions change a table, and something is broken meanwhile. A React
table in a real browser has to show the rows of the table in the end, and at every moment those of a
committed state. A program of the Python client, and `brain listen`, are sent each change once.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import monotonic

from tests.faults.client_battery.scenes import SCENES, Failure, Players, play


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.client_battery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--only", choices=[*SCENES], action="append", help="may be repeated")
    return parser.parse_args()


async def main() -> int:
    options = arguments()
    failed = Counter[str]()
    begun = monotonic()
    folder = Path(tempfile.mkdtemp(prefix="brain-clients-"))
    async with Players.ready(folder) as players:
        for name in options.only or SCENES:
            for seed in range(options.first, options.first + options.seeds):
                started = monotonic()
                try:
                    await play(name, seed, players)
                except Failure as failure:
                    failed[name] += 1
                    print(failure, flush=True)
                else:
                    print(f"{name:<28}{seed:>6}{monotonic() - started:>7.1f} s", flush=True)
    print(f"{monotonic() - begun:.0f} s; failed: {dict(failed) or 'none'}; logs in {folder}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
