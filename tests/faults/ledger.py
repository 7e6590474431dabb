"""
The ledger: all changes that were really committed.

The writers note each change in a table that Brain does not watch, in the transaction that makes the
change. Afterwards that table is the truth: a change that it lacks was rolled back. Nothing of
Brain's own (its log, ticks, cursors) is used to decide what is right.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence, Set
from itertools import accumulate
from time import monotonic
from typing import Any, NamedTuple

import asyncpg

SECRET = "never-to-be-sent"
"""Contained in every value that no client may receive."""

END = "the end"
"""The task that is inserted after everything else."""

UPDATE, COMPLETE, DELETED = "run_update", "run_complete", "run_deleted"

TABLES = """
    CREATE TABLE ledger (task text, version int, agent text, type text, transaction text);
    CREATE TABLE unheard (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, content text);
    SELECT brain.watch('unheard', 'unheard', '{id,content}');
"""


class Fact(NamedTuple):
    """One change of a task, as a client has to receive it."""

    task: str
    version: int
    """Its progress, which grows by 1 with each change, from 1; for a deletion one more."""
    agent: str
    """The transaction that wrote the row last."""
    type: str


class LedgerBroken(Exception):
    """The ledger contradicts the writers: the battery is at fault, not Brain."""


class Notes:
    """The writers' own record of their transactions."""

    def __init__(self) -> None:
        self.waits_for_disk = True
        """False: a crash of the database may take back what was committed."""
        self.sent: dict[str, float] = {}
        """When each COMMIT was sent, by the monotonic clock."""
        self.committed: set[str] = set()
        self.rolled_back: set[str] = set()
        self.unknown: set[str] = set()
        """
        The connection broke before COMMIT returned, or that did not wait for the disk: only the
        ledger has the outcome.
        """
        self.changes = 0
        """Made so far, committed or not."""

    def note_sent(self, transaction: str) -> None:
        self.sent[transaction] = monotonic()
        self.unknown.add(transaction)

    def note_returned(self, transaction: str) -> None:
        """Note that COMMIT has returned."""
        if self.waits_for_disk:
            self.unknown.remove(transaction)
            self.committed.add(transaction)


class Truth:
    """The contents of the ledger at the end."""

    def __init__(self, rows: Iterable[tuple[Any, ...]], notes: Notes) -> None:
        self.facts: set[Fact] = set()
        self.final: dict[str, int] = {}
        self._sent: dict[Fact, float] = {}
        self._sent_by_task: dict[str, list[float]] = {}
        transactions: set[str] = set()
        for task, version, agent, type, transaction in rows:
            fact = Fact(task, version, agent, type)
            if version != self.final.get(task, 0) + 1:
                raise LedgerBroken(f"{task} has version {version} after {self.final.get(task, 0)}")
            self.final[task] = version
            self.facts.add(fact)
            self._sent[fact] = notes.sent[transaction]
            self._sent_by_task.setdefault(task, []).append(notes.sent[transaction])
            transactions.add(transaction)
        if not notes.committed <= transactions or notes.rolled_back & transactions:
            raise LedgerBroken("the ledger lacks what was committed, or holds what was rolled back")

    def sent(self, fact: Fact) -> float:
        """Return when the COMMIT of a change was sent."""
        return self._sent[fact]

    def leaked(self, received: Set[Fact]) -> int:
        """Return how many of the received changes were never committed."""
        return len(received - self.facts)

    def first_after(self, task: str, moment: float) -> int:
        """Return the first version of a task whose COMMIT was sent after a moment."""
        return bisect_left(self._sent_by_task[task], moment) + 1


class Order:
    """All changes, in the order in which a client that stayed connected received them."""

    def __init__(self, facts: Sequence[Fact], truth: Truth) -> None:
        self.facts = facts
        self.place = {fact: place for place, fact in enumerate(facts, start=1)}
        moments = sorted((truth.sent(fact), self.place[fact]) for fact in facts)
        self._moments = [moment for moment, _ in moments]
        places = [place for _, place in reversed(moments)]
        self._first = [len(facts) + 1, *accumulate(places, min)]

    def first_after(self, moment: float) -> int:
        """Return the place of the first change whose COMMIT was sent after a moment."""
        return self._first[len(self._moments) - bisect_left(self._moments, moment)]


async def prepare(connection: asyncpg.Connection, tasks: Sequence[str]) -> None:
    """Create the ledger, and the first tasks, at version 0."""
    await connection.execute(TABLES)
    await connection.execute(
        "INSERT INTO tasks (id, title, payload)"
        " SELECT id, $2::text, jsonb_build_object('secret', $2::text) FROM unnest($1::text[]) id",
        list(tasks),
        SECRET,
    )


async def read_truth(connection: asyncpg.Connection, notes: Notes) -> Truth:
    rows = await connection.fetch(
        "SELECT task, version, agent, type, transaction FROM ledger ORDER BY task, version"
    )
    return Truth(map(tuple, rows), notes)
