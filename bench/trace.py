"""
Print the functions of Brain that one row change, and one client frame, pass through.

    python -m bench.trace

It counts the distinct functions and methods of the package `brain`. Comprehensions, lambdas and
generator expressions count as part of the function that contains them.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any

import asyncpg
import uvicorn
from websockets.asyncio.client import connect

import brain
from brain.app import build_app
from brain.database.migrations import migrate
from brain.embedded.server import serve_embedded
from brain.process.server import uvicorn_config
from brain.settings import Settings
from brain.system import installed_systems, schemas_of

PACKAGE = str(Path(brain.__file__).parent)
ROUNDS = 9


class Trace:
    """Records the functions of Brain that are called, in the order of their first calls."""

    def __init__(self) -> None:
        self.functions: dict[str, None] = {}
        self.is_on = False

    def __enter__(self) -> Trace:
        self.functions, self.is_on = {}, True
        # Set it each time: compiled code that calls back sometimes switches it off.
        sys.setprofile(self.note)
        return self

    def __exit__(self, *_: object) -> None:
        self.is_on = False
        sys.setprofile(None)

    def note(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if self.is_on and event == "call" and code.co_filename.startswith(PACKAGE):
            name = code.co_qualname.partition(".<locals>")[0]
            if not name.startswith("<"):
                place = code.co_filename.removeprefix(PACKAGE).lstrip("/")
                self.functions.setdefault(f"{place}:{name}")


async def traced(trace: Trace, act: Callable[[], Awaitable[object]]) -> list[str]:
    """
    Run several rounds; return the functions that most of them call.

    This leaves out what runs beside by chance, such as a report of the presence. A round in which
    the profile function was switched off is not counted.
    """
    rounds: list[dict[str, None]] = []
    while len(rounds) < ROUNDS:
        with trace:
            await act()
            is_whole = sys.getprofile() is not None
        if is_whole:
            rounds.append(trace.functions)
        await asyncio.sleep(0.3)
    calls = Counter(function for one in rounds for function in one)
    longest = max(rounds, key=len)
    return [function for function in longest if calls[function] > ROUNDS / 2]


async def measure(url: str, trace: Trace) -> None:
    settings = Settings(database_url=url, port=0)
    app = build_app(url, settings, list(installed_systems().values()))
    config = uvicorn_config(app, settings)
    config.port = 0
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    database = await asyncpg.connect(url)
    await database.execute("INSERT INTO tasks (id) VALUES ('t') ON CONFLICT DO NOTHING")
    async with connect(f"ws://127.0.0.1:{port}/ws") as client:
        await client.recv()
        await asyncio.sleep(1.0)

        async def change() -> None:
            await database.execute("UPDATE tasks SET progress = progress + 1 WHERE id = 't'")
            await client.recv()

        async def frame() -> None:
            await client.send('{"hello": "brain"}')
            await client.recv()

        for label, act in (("one client frame", frame), ("one row change", change)):
            functions = await traced(trace, act)
            print(f"{label}: {len(functions)} functions")
            for function in functions:
                print(f"    {function}")
    await database.close()
    server.should_exit = True
    await serving


def main() -> None:
    with serve_embedded(None, superuser=True) as server:
        asyncio.run(migrate(server.url, schemas_of(installed_systems().values())))
        trace = Trace()
        asyncio.run(measure(server.url, trace))


if __name__ == "__main__":
    main()
