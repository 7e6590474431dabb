"""
What clients make of the same orders, whatever happens to their connections.

    python -m tests.faults.client_battery [--first 1] [--seeds 50] [--only python/killed]

In each scene and seed random transactions change a table, and something is broken meanwhile. A
React table in a real browser has to show the rows of the table in the end, and at every moment
those of a committed state. A program of the Python client, and `brain listen`, are sent each change
once. Pages need a browser, and the npm packages of clients/typescript: those in the folder
NODE_CLIENT_PACKAGES, or after `npm ci` there.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

from brain.database.migrations import migrate
from tests.faults.client_battery.bundle import CannotBundle, bundle
from tests.faults.client_battery.orders_page import NoBrowser, launched_browser
from tests.faults.client_battery.scenes import PAGES, SCENES, Failure, Players, Screen, play
from tests.faults.client_battery.surroundings import Server
from tests.node_packages import CLIENT
from tests.postgres import new_database, server_for_tests
from tests.schemas import every_schema


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.client_battery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--only", choices=SCENES, action="append", help="may be repeated")
    return parser.parse_args()


@asynccontextmanager
async def ready(folder: Path, *, has_pages: bool) -> AsyncIterator[Players]:
    """Run a PostgreSQL with a migrated database to copy, and a browser if there are pages."""
    async with AsyncExitStack() as stack:
        url = stack.enter_context(server_for_tests())
        template = await stack.enter_async_context(new_database(url))
        await migrate(template, every_schema())
        server = Server(url, urlsplit(template).path.removeprefix("/"))
        screen = None
        if has_pages:
            packages = Path(os.environ.get("NODE_CLIENT_PACKAGES") or CLIENT)
            browser = await stack.enter_async_context(launched_browser())
            screen = Screen(browser, await bundle(packages))
        yield Players(server, folder, screen)


async def main() -> int:
    options = arguments()
    # What the clients lose is meant to be lost.
    logging.getLogger("brain.client").setLevel(logging.CRITICAL)
    names = options.only or SCENES
    failed = Counter[str]()
    begun = monotonic()
    folder = Path(tempfile.mkdtemp(prefix="brain-clients-"))
    async with ready(folder, has_pages=any(name in PAGES for name in names)) as players:
        for name in names:
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
    try:
        sys.exit(asyncio.run(main()))
    except (NoBrowser, CannotBundle) as reason:
        sys.exit(f"no page can be shown: {reason}; --only plays other scenes")
