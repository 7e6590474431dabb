"""All scenarios, in a full and a short version, and the printing of their reports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from textwrap import fill
from typing import NamedTuple

from tests.faults.arrivals import churn, slow_handshakes
from tests.faults.breaking import (
    black_hole,
    listener_terminated,
    postgres_killed,
    postgres_restart,
    server_killed,
)
from tests.faults.coming_back import resume_race, retention_race, two_nodes
from tests.faults.cursors import cursors, snapshot_race
from tests.faults.figures import Findings
from tests.faults.floods import floods
from tests.faults.fuzz import nonsense
from tests.faults.hostile_rows import hostile_rows
from tests.faults.rolling import LONGEST_WAIT_SECONDS, rolling
from tests.faults.row_rules import row_rules
from tests.faults.scene import Report, Stage
from tests.faults.silence import half_open, stopped_processes
from tests.faults.slow_readers import slow_drinkers, stopped_readers
from tests.faults.states import states

Play = Callable[[Stage], Awaitable[Report]]


class Scenario(NamedTuple):
    full: Play
    short: Play
    deed: str
    """The name of its faults in the report."""


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
    "postgres-killed": Scenario(
        partial(postgres_killed, times=40, clients=10, rate=10, waits=True),
        partial(postgres_killed, times=3, clients=4, rate=10, waits=True),
        "kills",
    ),
    "killed-unflushed": Scenario(
        partial(postgres_killed, times=40, clients=10, rate=10, waits=False),
        partial(postgres_killed, times=2, clients=4, rate=10, waits=False),
        "kills",
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
    "rolling": Scenario(
        partial(
            rolling,
            rounds=2,
            clients=5,
            with_cursors=1000,
            without_cursors=200,
            rate=495,
            notes_rate=5,
            drain_seconds=20,
            longest_wait_seconds=LONGEST_WAIT_SECONDS,
        ),
        partial(
            rolling,
            rounds=1,
            clients=4,
            with_cursors=60,
            without_cursors=20,
            rate=100,
            notes_rate=10,
            drain_seconds=400,
            # Of a machine that does other work besides: the full form has the bound.
            longest_wait_seconds=inf,
        ),
        "replacements",
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


class Misdeed(NamedTuple):
    """A scenario of clients that misbehave."""

    full: Callable[[Stage], Awaitable[Findings]]
    short: Callable[[Stage], Awaitable[Findings]]


# Brain's defaults: a ping after 20 s, 60 s for unread data and the ring, 10 s for handshakes.
FULL_READERS = partial(
    stopped_readers,
    rate=200,
    payload_bytes=900,
    unread_timeout_seconds=60,
    calm_seconds=20,
    trial_seconds=6,
    slack_milliseconds=5,
)
SHORT_READERS = partial(
    stopped_readers,
    rate=100,
    payload_bytes=30_000,
    unread_timeout_seconds=2,
    calm_seconds=1,
    trial_seconds=0,
    slack_milliseconds=150,
)

HOSTILE_STATEMENTS = {
    "UTF8": 6000,
    "SQL_ASCII": 1000,
    "LATIN1": 600,
    "WIN1252": 1000,
    "EUC_JP": 1000,
}

MISDEEDS = {
    "one-stopped": Misdeed(
        partial(FULL_READERS, stopped=1, others=999),
        partial(SHORT_READERS, stopped=1, others=9),
    ),
    "many-stopped": Misdeed(
        partial(FULL_READERS, stopped=100, others=900),
        partial(SHORT_READERS, stopped=5, others=10),
    ),
    "stopped-process": Misdeed(
        partial(stopped_processes, ping_seconds=20, unread_timeout_seconds=60),
        partial(stopped_processes, ping_seconds=0.5, unread_timeout_seconds=1),
    ),
    "byte-by-byte": Misdeed(
        partial(slow_drinkers, ring_seconds=60, rate=200, payload_bytes=4000),
        partial(slow_drinkers, ring_seconds=1, rate=200, payload_bytes=20_000),
    ),
    "half-open": Misdeed(
        partial(half_open, ping_seconds=20, unread_timeout_seconds=60),
        partial(half_open, ping_seconds=0.5, unread_timeout_seconds=1),
    ),
    "slow-handshakes": Misdeed(
        partial(
            slow_handshakes,
            sockets=1000,
            handshake_timeout_seconds=10,
            limit_seconds=12,
            good_seconds=1,
        ),
        partial(
            slow_handshakes,
            sockets=100,
            handshake_timeout_seconds=2,
            limit_seconds=6,
            good_seconds=3,
        ),
    ),
    "floods": Misdeed(
        partial(floods, limit_seconds=5, most_bytes=64 << 20),
        partial(floods, limit_seconds=3, most_bytes=8 << 20),
    ),
    "churn": Misdeed(partial(churn, connections=20_000), partial(churn, connections=400)),
    **{
        f"rows-{encoding.lower()}": Misdeed(
            partial(hostile_rows, statements=full, most_bytes=20 << 20, encoding=encoding),
            partial(hostile_rows, statements=300, most_bytes=1 << 20, encoding=encoding),
        )
        for encoding, full in HOSTILE_STATEMENTS.items()
    },
    "row-rules": Misdeed(partial(row_rules, rounds=50), partial(row_rules, rounds=4)),
    "states": Misdeed(
        partial(states, seeds=50), partial(states, seeds=2, rounds=2, transactions=10, nodes=1)
    ),
    "nonsense": Misdeed(
        partial(nonsense, frames=10_000, texts=10_000),
        partial(nonsense, frames=300, texts=300),
    ),
}

HEADING = (
    f"{'scenario':<20}{'lost':>6}{'doubled':>8}{'reorder':>8}{'leaked':>7}{'unexp.':>7}"
    f"{'writes':>8}{'/s':>5}{'received':>9}{'resets':>7}{'seconds':>8}  faults"
)

MISDEEDS_HEADING = f"{'misdeed':<20}{'seconds':>8}  {'verdict':<8}figures"
LINE_WIDTH = 120


def report_line(name: str, outcome: Report | Findings, seconds: float) -> str:
    """Return a scenario's row of its table, in one or more lines."""
    if isinstance(outcome, Findings):
        return misdeed_line(name, outcome, seconds)
    counts = "".join(
        f"{count:>{width}}" for count, width in zip(outcome.verdict, (6, 8, 8, 7, 7), strict=True)
    )
    line = (
        f"{name:<20}{counts}{outcome.writes:>8}{outcome.writes_per_second:>5.0f}"
        f"{outcome.deliveries:>9}{outcome.resets:>7}{seconds:>8.1f}"
        f"  {outcome.faults} {SCENARIOS[name].deed}"
    )
    if not outcome.figures:
        return line
    indent = " " * 20
    figures = fill(
        str(Findings(outcome.figures)),
        LINE_WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
    )
    return f"{line}\n{figures}"


def misdeed_line(name: str, findings: Findings, seconds: float) -> str:
    verdict = "ok" if findings.is_clean else "FAILED"
    head = f"{name:<20}{seconds:>8.1f}  {verdict:<8}"
    return fill(str(findings), LINE_WIDTH, initial_indent=head, subsequent_indent=" " * len(head))
