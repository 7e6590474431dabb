"""The battery for clients finds clients that are wrong."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.async_api import Browser

from brain.client import Brain
from brain.client.connection import Connection
from brain.client.cursor_file import CursorFile
from brain.client.link import Frame
from brain.client.place import Place
from brain.client.query import Query
from brain.client.subscription import Subscription
from tests.faults.client_battery import programs, surroundings
from tests.faults.client_battery.bundle import Edit, bundle
from tests.faults.client_battery.scenes import Failure, Players, Screen, play
from tests.faults.client_battery.surroundings import Server
from tests.faults.test_client_battery import (
    SEEDS,
    browser,
    losses_are_meant,
    node_packages,
    server,
)

__all__ = ["browser", "losses_are_meant", "node_packages", "server"]

PATIENCE_SECONDS = 8.0


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less long for what a mutant will never do."""
    monkeypatch.setattr(surroundings, "PATIENCE_SECONDS", PATIENCE_SECONDS)


async def is_found(scene: str, players: Players) -> bool:
    for seed in SEEDS:
        try:
            await play(scene, seed, players)
        except Failure:
            return True
    return False


class PageMutant(NamedTuple):
    scene: str
    edits: Sequence[Edit]


PAGE_MUTANTS = {
    "ignores reset": PageMutant(
        "retention-passed", [Edit("store.ts", "if (op == 'reset') {", "if (op == 'never') {")]
    ),
    "shows a part of a snapshot": PageMutant(
        "retention-passed",
        [Edit("store.ts", "return !building", "store._rows = present()\nreturn true")],
    ),
    "never resumes": PageMutant(
        "killed", [Edit("session.ts", "numbers: 'string', after: _place", "numbers: 'string'")]
    ),
    "resumes from where it began": PageMutant(
        "killed",
        [
            Edit("session.ts", "subscription._place = at", "subscription._place ??= at"),
            Edit("session.ts", "_place = session._place", "_place ??= session._place"),
        ],
    ),
    "does not keep transactions together": PageMutant(
        "mounted-again",
        [Edit("store.ts", "else if (txid && !last && op", "else if (txid && !op && op")],
    ),
    "knows no event streams": PageMutant(
        "blocked", [Edit("brain.ts", "if (++failures < 2) return", "return")]
    ),
    "does not notice a dead link": PageMutant(
        "asleep", [Edit("session.ts", "watch = soon ?", "soon && milliseconds < 0 ?")]
    ),
    "does not hear that the network has gone and come": PageMutant(
        "offline", [Edit("brain.ts", "['online', 'offline', ", "[")]
    ),
    "keeps its token": PageMutant(
        "expiring",
        [Edit("brain.ts", "const now = typeof", "const now = (options as any).kept ??= typeof")],
    ),
    "does not follow another leading tab": PageMutant(
        "leading-tab-closed", [Edit("tabs.ts", "client.lead()", "client")]
    ),
}


@pytest.mark.parametrize("name", PAGE_MUTANTS)
async def test_a_page_whose_client_is_wrong_is_found(
    name: str, server: Server, browser: Browser, node_packages: Path, tmp_path: Path
) -> None:
    mutant = PAGE_MUTANTS[name]
    script = await bundle(node_packages, mutant.edits)
    players = Players(server, tmp_path, Screen(browser, script))
    assert await is_found(f"react/{mutant.scene}", players)


Patch = Callable[[pytest.MonkeyPatch], object]


def drops_frames(patch: pytest.MonkeyPatch) -> None:
    receive, count = Connection.next, itertools.count()

    async def next(self: Connection) -> Frame:
        frame = await receive(self)
        return await receive(self) if is_chosen(frame, count) else frame

    patch.setattr(Connection, "next", next)


def doubles_frames(patch: pytest.MonkeyPatch) -> None:
    receive, count, kept = Connection.next, itertools.count(), list[Frame]()

    async def next(self: Connection) -> Frame:
        if kept:
            return kept.pop()
        frame = await receive(self)
        if is_chosen(frame, count):
            kept.append(frame)
        return frame

    patch.setattr(Connection, "next", next)


def is_chosen(frame: Frame, count: Iterator[int]) -> bool:
    """Return True for one change of a hundred."""
    return "key" in frame and next(count) % 100 == 50


def begins_anew(patch: pytest.MonkeyPatch) -> None:
    make = Query.frame
    patch.setattr(Query, "frame", lambda self, place, **options: make(self, None, **options))


def resumes_too_early(patch: pytest.MonkeyPatch) -> None:
    change = Place._change

    def stay(self: Place, frame: Frame) -> None:
        before = self.cursor
        change(self, frame)
        if "key" in frame and before is not None:
            self.cursor = before

    patch.setattr(Place, "_change", stay)


def hides_resets(patch: pytest.MonkeyPatch) -> None:
    take = Subscription._take

    def hide(self: Subscription[Any], frame: Frame) -> None:
        take(self, frame)
        while self._pending and self._pending[-1]["op"] == "reset":
            self._pending.pop()

    patch.setattr(Subscription, "_take", hide)


def forgets_cursors(patch: pytest.MonkeyPatch) -> None:
    async def forget(self: CursorFile, name: str, cursor: str | None) -> None:
        return None

    patch.setattr(CursorFile, "store", forget)


def knows_no_streams(patch: pytest.MonkeyPatch) -> None:
    make = partial(Brain, transport="websocket")
    patch.setattr(programs, "Brain", make)


def keeps_its_token(patch: pytest.MonkeyPatch) -> None:
    def make(url: str, *, token: Callable[[], str], **options: Any) -> Brain:
        return Brain(url, token=token(), **options)

    patch.setattr(programs, "Brain", make)


PROGRAM_MUTANTS: dict[str, tuple[str, Patch]] = {
    "drops frames": ("killed", drops_frames),
    "doubles frames": ("killed", doubles_frames),
    "begins anew instead of resuming": ("torn", begins_anew),
    "resumes too early": ("torn", resumes_too_early),
    "hides resets": ("retention-passed", hides_resets),
    "forgets cursors": ("restarted", forgets_cursors),
    "knows no event streams": ("blocked", knows_no_streams),
    "keeps its token": ("expiring", keeps_its_token),
}


@pytest.mark.parametrize("name", PROGRAM_MUTANTS)
async def test_a_program_whose_client_is_wrong_is_found(
    name: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, mutate = PROGRAM_MUTANTS[name]
    mutate(monkeypatch)
    assert await is_found(f"python/{scene}", Players(server, tmp_path))
