"""All scenarios, in full and in short, and how their reports are printed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

from tests.faults.breaking import black_hole, listener_terminated, postgres_restart, server_killed
from tests.faults.coming_back import resume_race, retention_race, two_nodes
from tests.faults.scene import Report, Stage
from tests.faults.strangers import cursors, snapshot_race

Play = Callable[[Stage], Awaitable[Report]]


class Scenario(NamedTuple):
    full: Play
    short: Play
    deed: str
    """What its faults are."""


QUICKLY = {"BRAIN_IDLE_POLL_SECONDS": "0.3", "BRAIN_DATABASE_TIMEOUT_SECONDS": "0.5"}

SCENARIOS = {
    "listener-terminated": Scenario(
        partial(listener_terminated, times=100, clients=20, rate=500),
        partial(listener_terminated, times=6, clients=4, rate=200),
        "terminations",
    ),
    "postgres-restart": Scenario(
        partial(postgres_restart, times=10, clients=20, rate=500),
        partial(postgres_restart, times=2, clients=4, rate=200),
        "restarts",
    ),
    "black-hole": Scenario(
        partial(black_hole, seconds=20, times=1, clients=20, rate=200),
        partial(black_hole, seconds=1.5, times=1, clients=4, rate=100, settings=QUICKLY),
        "black holes",
    ),
    "server-killed": Scenario(
        partial(server_killed, times=20, clients=200, rate=50),
        partial(server_killed, times=1, clients=10, rate=100),
        "ends of Brain",
    ),
    "two-nodes": Scenario(
        partial(two_nodes, hops=300, clients=11, rate=200),
        partial(two_nodes, hops=10, clients=4, rate=100),
        "hops",
    ),
    "resume-race": Scenario(
        partial(resume_race, times=5000, clients=17, rate=200),
        partial(resume_race, times=40, clients=5, rate=100),
        "resumes",
    ),
    "snapshot-race": Scenario(
        partial(snapshot_race, times=5000, at_once=8, rate=200),
        partial(snapshot_race, times=60, at_once=4, rate=100),
        "snapshots",
    ),
    "cursors": Scenario(
        partial(cursors, each=1000, at_once=16, rate=200),
        partial(cursors, each=20, at_once=4, rate=200),
        "bad cursors",
    ),
    "retention-race": Scenario(
        partial(retention_race, times=600, clients=20, rate=200),
        partial(retention_race, times=60, clients=5, rate=100),
        "times forgotten",
    ),
}

HEADING = (
    f"{'scenario':<20}{'lost':>6}{'doubled':>8}{'reorder':>8}{'leaked':>7}{'unexp.':>7}"
    f"{'writes':>8}{'/s':>5}{'heard':>9}{'resets':>7}{'seconds':>8}  faults"
)


def told(name: str, report: Report, seconds: float) -> str:
    """Return a scenario's line of the table."""
    counts = "".join(
        f"{count:>{width}}" for count, width in zip(report.verdict, (6, 8, 8, 7, 7), strict=True)
    )
    return (
        f"{name:<20}{counts}{report.writes:>8}{report.writes_per_second:>5.0f}"
        f"{report.deliveries:>9}{report.resets:>7}{seconds:>8.1f}"
        f"  {report.faults} {SCENARIOS[name].deed}"
    )
