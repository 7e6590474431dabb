"""What simple clients keep, and the judgment of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.faults.figures import Figure, Findings
from tests.faults.filter_sql import parsed
from tests.faults.random_table import Rows
from tests.faults.random_writers import Effect
from tests.faults.simple_client import Copy, Frame


class JudgedCopy(Copy):
    """A copy that notes what it looks like after each transaction."""

    def __init__(self) -> None:
        super().__init__(parsed)
        self.heartbeats = 0
        self.frames: Counter[str] = Counter()
        self.applied: list[tuple[str, Rows]] = []

    def take(self, frame: Frame) -> None:
        what = frame.get("op") or frame["type"]
        self.frames[what] += 1
        if what == "error" and frame["code"] not in ("unavailable", "snapshot_unavailable"):
            raise AssertionError(f"refused: {frame}")
        self.heartbeats += what == "ping"
        super().take(frame)

    def apply(self, txid: str) -> None:
        is_noted = self.is_whole and txid in self.parts
        super().apply(txid)
        if is_noted:
            self.applied.append((txid, dict(self.rows)))


@dataclass
class Tally:
    seeds: int = 0
    rounds: int = 0
    transactions: int = 0
    statements: int = 0
    cut: int = 0
    brains_killed: int = 0
    databases_killed: int = 0
    compared: int = 0
    whole: int = 0
    frames: Counter[str] = field(default_factory=Counter)
    different: int = 0
    torn: int = 0
    example: str = ""

    def note(self, example: str) -> None:
        self.example = self.example or example

    def findings(self) -> Findings:
        frames = self.frames
        first = f" ({self.example})" if self.example else ""
        return Findings(
            (
                Figure("seeds", self.seeds, least=1),
                Figure("transactions", self.transactions, least=1),
                Figure("statements", self.statements),
                Figure("frames", frames.total(), least=1),
                Figure("left", frames["leave"], least=1),
                Figure("resets", frames["reset"]),
                Figure("published", frames["message"]),
                Figure("connections cut", self.cut, least=1),
                Figure("Brains killed", self.brains_killed, least=1),
                Figure("databases killed", self.databases_killed, least=1),
                Figure("states compared", self.compared, least=1),
                Figure(f"different{first}", self.different, most=0),
                Figure("transactions seen", self.whole, least=1),
                Figure("in parts", self.torn, most=0),
            )
        )


def fault(rows: Rows, effect: Effect | None, view: int) -> str | None:
    """Return what is wrong with the rows of a view right after a transaction was applied."""
    if effect is None:
        return "it was not committed"
    found = {key: rows[key] for key in effect.keys if key in rows}
    expected = effect.views[view]
    return None if found == expected else difference(found, expected)


def difference(found: Rows, expected: Rows) -> str:
    """Describe how two states differ."""
    extra = {key: row for key, row in found.items() if key not in expected}
    missing = {key: row for key, row in expected.items() if key not in found}
    others = {
        key: (row, expected[key])
        for key, row in found.items()
        if key in expected and row != expected[key]
    }
    return f"too many {extra}, missing {missing}, different {others}"
