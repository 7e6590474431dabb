"""The transactions that one client waits for, and why it waits in vain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from brain.database.transactions import AwaitedTransactions, Outcome
from brain.hub.hub import Hub
from brain.message.commands import AwaitTransaction, Refuse

MOST_AWAITED = 100


@dataclass(eq=False, slots=True)
class Awaited:
    """A transaction that a client waits for."""

    command: AwaitTransaction
    give_up: Callable[[], None]
    tick: int | None = None
    """Once it is known: a tick that sees it."""


class AwaitedByClient:
    """Answers a client once it was sent all that a transaction has for it."""

    __slots__ = (
        "_after_delivery",
        "_answer",
        "_has_been_sent",
        "_transactions",
        "_waiting",
    )

    def __init__(
        self,
        transactions: AwaitedTransactions,
        hub: Hub,
        *,
        has_been_sent: Callable[[int], bool],
        answer: Callable[[AwaitTransaction, Outcome], None],
    ) -> None:
        """`has_been_sent` says whether the client was sent everything up to the end of a tick."""
        self._transactions = transactions
        self._after_delivery = hub.after_delivery
        self._has_been_sent = has_been_sent
        self._answer = answer
        self._waiting: dict[AwaitTransaction, Awaited] = {}

    def add(self, command: AwaitTransaction) -> bool:
        """Wait for a transaction; return False if there are too many, or this one already."""
        if len(self._waiting) >= MOST_AWAITED or command in self._waiting:
            return False
        callback = partial(self._settle, command)
        id = command.transaction_id
        give_up = partial(self._transactions.give_up, id, callback)
        self._waiting[command] = Awaited(command, give_up)
        self._transactions.wait(id, callback)
        return True

    def answer(self) -> None:
        """Answer what can be answered by now."""
        for awaited in list(self._waiting.values()):
            if awaited.tick is not None and self._has_been_sent(awaited.tick):
                del self._waiting[awaited.command]
                self._answer(awaited.command, Outcome("committed", awaited.tick))
        if any(awaited.tick is not None for awaited in self._waiting.values()):
            self._after_delivery.add(self.answer)
        else:
            self._after_delivery.discard(self.answer)

    def cancel(self) -> None:
        """Stop waiting for transactions, and send no more answers."""
        for awaited in self._waiting.values():
            awaited.give_up()
        self._waiting.clear()
        self._after_delivery.discard(self.answer)
        # Otherwise this and its session would keep each other in memory.
        del self._has_been_sent, self._answer

    def _settle(self, command: AwaitTransaction, outcome: Outcome) -> None:
        awaited = self._waiting.get(command)
        if awaited is None:  # it was given up meanwhile
            return
        if outcome.state == "committed":
            awaited.tick = outcome.tick
            self.answer()
        else:
            del self._waiting[command]
            self._answer(command, outcome)


def refusal_of(command: AwaitTransaction, outcome: Outcome) -> Refuse | None:
    """Return why a client waits for a transaction in vain; None: it does not."""
    match outcome.state:
        case "committed":
            return None
        case "rolled back":
            reason = f"the transaction {command.transaction_id} was rolled back"
            return Refuse(reason, "rolled_back", command.id)
        case "unknown":
            reason = f"there is no transaction {command.transaction_id} so far"
            return Refuse(reason, "unknown_transaction", command.id)
