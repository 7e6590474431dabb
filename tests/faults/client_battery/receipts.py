"""What a program was sent of the orders, and its judge: each change once, in order per row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

from tests.faults.client_battery.orders import History, Order, State

FIRST_MARK = -100
"""Rows with this id and below show by their arrival that a program is subscribed."""
CHANGES = ("insert", "update", "delete", "leave")


class Receipt(NamedTuple):
    """A change, or a row of a snapshot."""

    id: int
    order: Order | None
    """None if the row is gone."""
    txid: str | None
    """None for a row of a snapshot."""


@dataclass
class Segment:
    """What came of each order between two resets."""

    receipts: dict[int, list[Receipt]] = field(default_factory=dict)
    truncates: set[str] = field(default_factory=set)
    """The transactions in which all rows were removed."""
    truncates_of_all: set[str] = field(default_factory=set)
    """Those that came after the end of a snapshot: each row that they removed was known."""
    has_snapshot: bool = False
    is_in_snapshot: bool = False

    @property
    def is_complete(self) -> bool:
        """True if the rows of a snapshot are all there."""
        return self.has_snapshot and not self.is_in_snapshot

    def add(self, receipt: Receipt) -> None:
        self.receipts.setdefault(receipt.id, []).append(receipt)

    def truncate(self, txid: str) -> None:
        self.truncates.add(txid)
        if self.is_complete:
            self.truncates_of_all.add(txid)
        for id, receipts in self.receipts.items():
            if receipts[-1].order is not None:
                receipts.append(Receipt(id, None, txid))


class Receipts:
    """Takes the changes as a program prints or handles them."""

    def __init__(self) -> None:
        self.segments = [Segment()]
        self.marks: set[int] = set()
        """The marks that have come."""
        self.is_live = False
        """True once `live` has come."""
        self.resets = 0
        self.repeated = 0
        """Changes that a restarted program got a second time, as it may: one each."""
        self.changes = 0
        self.unannounced = 0
        """Snapshots that began without a reset after another one."""
        self._in_hand: Mapping[str, Any] | None = None
        self._is_restarted = False

    def restart(self) -> None:
        """Note that the program was started anew: the change that it had in hand may come again."""
        self._is_restarted = True
        if self.segments[-1].is_in_snapshot:
            # There was no place to go on from.
            self.segments.append(Segment())

    def take(self, change: Mapping[str, Any]) -> None:
        """Take a change with the keys of a frame."""
        if self._is_restarted:
            self._is_restarted = False
            if change == self._in_hand:
                self.repeated += 1
                return
        self._in_hand = change
        self._note(change)

    def _note(self, change: Mapping[str, Any]) -> None:
        segment = self.segments[-1]
        match change["op"]:
            case "reset":
                self.resets += 1
                self.segments.append(Segment())
            case "snapshot":
                self.unannounced += segment.is_complete
                segment.has_snapshot = segment.is_in_snapshot = True
                segment.add(Receipt(change["key"][0], order_of(change["row"]), None))
            case "snapshot-end":
                segment.has_snapshot, segment.is_in_snapshot = True, False
            case "live":
                self.is_live = True
            case "truncate":
                self.changes += 1
                segment.truncate(change["txid"])
            case op if op in CHANGES:
                self.changes += 1
                id, row = change["key"][0], change.get("row")
                order = order_of(row) if op in ("insert", "update") and row else None
                segment.add(Receipt(id, order, change["txid"]))
                if id <= FIRST_MARK:
                    self.marks.add(id)


def order_of(row: Mapping[str, Any]) -> Order:
    # A float was made of a number that it holds with all digits: its shortest text has them.
    return Order(row["status"], Decimal(str(row["total"])))


def faults(receipts: Receipts, history: History, since: int | None) -> list[str]:
    """
    Return what is wrong with what a program was sent.

    `since` is the serial after which each state of the history has to be there, of a program that
    asked for no snapshot.
    """
    found = ["rows came again without a reset"] if receipts.unannounced else []
    for number, segment in enumerate(receipts.segments):
        is_last = number == len(receipts.segments) - 1
        bound = since if number == 0 and not segment.has_snapshot else None
        for id in sorted(history.keys() | segment.receipts.keys()):
            fault = fault_of(segment, id, history.get(id, ()), bound, is_last=is_last)
            if fault is not None:
                found.append(f"order {id}: {fault}")
    return found


def fault_of(
    segment: Segment, id: int, states: Sequence[State], since: int | None, *, is_last: bool
) -> str | None:
    """Return what is wrong with what was sent of one order between two resets."""
    base, changes = split(segment.receipts.get(id, []))
    got = [(each.txid, each.order) for each in changes]
    committed: list[Known] = [(state.txid, state.order) for state in states]
    if since is not None:
        wanted = committed[sum(state.serial <= since for state in states) :]
        seen = list(with_truncates(got, wanted, segment.truncates))
        if not is_last:
            wanted = wanted[: len(seen)]
        return None if seen == wanted else first_difference(seen, wanted)
    for txid, order in committed:
        if order is None and txid in segment.truncates_of_all and (txid, None) not in got:
            return f"it was not there when {txid} removed it with all others"
    for end in [len(committed)] if is_last else range(len(committed), -1, -1):
        if explains(base, got, committed[:end], is_last=is_last):
            return None
    tail = committed[-len(got) - 1 :]
    return f"got {shown(got)} on {base and base.order}, the history ends with {shown(tail)}"


def explains(
    base: Receipt | None, got: Sequence[Known], committed: Sequence[Known], *, is_last: bool
) -> bool:
    """Return True if the committed states end with those that came, after that of a snapshot."""
    start = len(committed) - len(got)
    if start < 0 or list(committed[start:]) != list(got):
        return False
    before = committed[start - 1][1] if start else None
    if base is not None:
        return base.order == before
    return bool(got) or before is None or not is_last


def split(receipts: Sequence[Receipt]) -> tuple[Receipt | None, Sequence[Receipt]]:
    """Return the last row of a snapshot, if there is one, and the changes after it."""
    for index in range(len(receipts) - 1, -1, -1):
        if receipts[index].txid is None:
            return receipts[index], receipts[index + 1 :]
    return None, receipts


Known = tuple[str | None, Order | None]


def with_truncates(
    got: Sequence[Known], wanted: Iterable[Known], truncates: set[str]
) -> Iterator[Known]:
    """Yield what came of an order, with the truncates of before it was known to the client."""
    rest = list(got)
    for state in wanted:
        if rest and rest[0] == state:
            yield rest.pop(0)
        elif state[1] is None and state[0] in truncates:
            yield state
        else:
            break
    yield from rest


def first_difference(seen: Sequence[Known], wanted: Sequence[Known]) -> str:
    for index in range(max(len(seen), len(wanted))):
        if seen[index : index + 1] != wanted[index : index + 1]:
            return (
                f"change {index}: got {shown(seen[index : index + 2])},"
                f" committed {shown(wanted[index : index + 2])}"
            )
    raise AssertionError("there is no difference")


def shown(states: Sequence[Known]) -> str:
    return (
        ", ".join(
            f"{order.status} {order.total} of {txid}" if order else f"gone by {txid}"
            for txid, order in states
        )
        or "nothing"
    )
