"""Which messages a newer one about the same row makes superfluous."""

from __future__ import annotations

from brain.message.event import Event, Operation
from brain.message.runs import CHANNEL, type_of_run


def passing_subject(event: Event) -> str | None:
    """
    Return what `event` tells the passing state of; None if it is to be told whatever comes later.

    Passing is every `run_update`, and of other tables the changes of a row: not that it came or
    went, nor anything that was published.
    """
    if event.channel == CHANNEL:
        is_passing = event.operation in (Operation.INSERT, Operation.UPDATE) and (
            type_of_run(event) == "run_update"
        )
    else:
        is_passing = event.operation is Operation.UPDATE
    return f"{event.channel} {event.key}" if is_passing else None
