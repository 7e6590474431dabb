"""The presence of many users on two nodes, one of which is killed."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.end_to_end.brain import RunningBrain, becomes, running_brain

USERS, TABS = 100, 3
NO_GRACE = {"BRAIN_PRESENCE_GRACE_SECONDS": "0"}
AT_ONCE = 25

Sequences = dict[str, list[str]]


class Observer:
    """Receives the presence of all users, and groups it by user."""

    def __init__(self) -> None:
        self.received: Sequences = defaultdict(list)

    @asynccontextmanager
    async def watching(self, brain: RunningBrain) -> AsyncIterator[None]:
        """Watch until the context ends, or the node does."""
        async with tab(brain, "observer") as socket:
            task = asyncio.create_task(self._watch(socket))
            try:
                yield
            finally:
                task.cancel()

    async def _watch(self, socket: ClientConnection) -> None:
        async for text in socket:
            message = json.loads(text)
            if message["type"] == "user_presence":
                self.received[message["data"]["userId"]].append(message["data"]["status"])


def tab(brain: RunningBrain, user: str) -> connect:
    address = f"ws://127.0.0.1:{brain.port}/ws?token={user}"
    return connect(address, proxy=None, compression=None, max_queue=None, open_timeout=60)


class Users:
    """The tabs of all users, and the presence updates that are expected of them."""

    def __init__(self, nodes: tuple[RunningBrain, RunningBrain]) -> None:
        self._nodes = nodes
        self._random = Random(5221)
        self.tabs: dict[str, dict[ClientConnection, RunningBrain]] = {}
        self.expected: Sequences = defaultdict(list)

    async def connect(self, number: int) -> None:
        """Open three tabs of a user: of every other pair of users on both nodes."""
        word = f"u{number}"
        nodes = (
            [self._nodes[number % 2]] * TABS if number % 4 < 2 else [*self._nodes, self._nodes[0]]
        )
        self.tabs[f"user_{word}"] = {await tab(node, word): node for node in nodes}

    async def set_statuses(self, user: str, *statuses: str) -> None:
        """Set one status after the other in one tab: nodes do not order those of several tabs."""
        socket = self._random.choice(list(self.tabs[user]))
        for status in statuses:
            await socket.send(json.dumps({"type": "user_presence", "data": status}))
            if self.expected[user][-1:] != [status]:
                self.expected[user].append(status)

    async def close(self, user: str, leave: int = 0) -> None:
        """Close all tabs of a user but `leave`."""
        for socket in list(self.tabs[user])[leave:]:
            await socket.close()
            del self.tabs[user][socket]
        self._note_absence(user)

    def lose(self, node: RunningBrain) -> None:
        """Note that a node is gone with all its tabs."""
        for user, tabs in self.tabs.items():
            was_there = bool(tabs)
            self.tabs[user] = {socket: at for socket, at in tabs.items() if at is not node}
            if was_there:
                self._note_absence(user)

    def _note_absence(self, user: str) -> None:
        if not self.tabs[user]:
            self.expected[user].append("offline")

    async def are_received_by(self, *observers: Observer) -> None:
        """Wait until the observers have received all that is expected; fail with what differs."""
        with suppress(TimeoutError):
            await becomes(lambda: all(one.received == self.expected for one in observers))
        for observer in observers:
            assert observer.received == self.expected


async def in_turns(some: Iterable[Coroutine[Any, Any, None]]) -> None:
    waiting = list(some)
    for start in range(0, len(waiting), AT_ONCE):
        await asyncio.gather(*waiting[start : start + AT_ONCE])


async def test_a_client_sees_each_user_connect_change_status_and_disconnect(
    tmp_path: Path, database: str
) -> None:
    folders = [tmp_path / name for name in ("killed", "kept")]
    for folder in folders:
        folder.mkdir()
    async with (
        running_brain(folders[0], "--database-url", database, **NO_GRACE) as killed,
        running_brain(folders[1], "--database-url", database, **NO_GRACE) as kept,
    ):
        observers = Observer(), Observer()
        async with observers[0].watching(killed), observers[1].watching(kept):
            users = Users((killed, kept))
            await in_turns(users.connect(number) for number in range(USERS))
            names = list(users.tabs)

            for statuses in (["online"], ["online", "away"], ["busy"]):
                await in_turns(users.set_statuses(name, *statuses) for name in names)
                await users.are_received_by(*observers)
            await in_turns(users.close(name) for name in names[::5])
            await in_turns(users.close(name, leave=1) for name in names[1::5])
            await users.are_received_by(*observers)

            killed.process.kill()
            await killed.process.wait()
            users.lose(killed)
            await users.are_received_by(observers[1])
            assert any(users.tabs.values())

            await in_turns(users.close(name) for name in names if users.tabs[name])
            await users.are_received_by(observers[1])
        assert {sequence[-1] for sequence in observers[1].received.values()} == {"offline"}
        assert len(observers[1].received) == USERS
