"""Where changes and the state of the connection are shown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import click

from brain.cli.listening.exact_text import visible
from brain.cli.listening.line_writer import LineWriter
from brain.client import Change, Status


class Output(Protocol):
    """Shows what comes."""

    async def show(self, change: Change[Any]) -> None:
        """Return once the change is out; raises BrokenPipeError if nothing reads any more."""
        ...

    def report(self, status: Status) -> None:
        """Show how the connection is."""
        ...

    def when_closed(self, ended: asyncio.Future[None]) -> None:
        """End `ended` with BrokenPipeError when nothing reads any more."""
        ...


class LineOutput:
    """Writes a line a change; what the connection does goes to standard error."""

    def __init__(self, line_of: Callable[[Change[Any]], str], writer: LineWriter) -> None:
        self._line_of = line_of
        self._writer = writer
        self._offline = ""

    async def show(self, change: Change[Any]) -> None:
        if change.op == "reset":
            note(f"{change.channel}: what it has missed cannot be sent: {change.reason}")
        await self._writer.write(self._line_of(change))

    def report(self, status: Status) -> None:
        if status.state == "offline":
            said = ": ".join(filter(None, ("offline", status.why, status.advice)))
            if said != self._offline:  # Once, not at each attempt.
                note(said)
            self._offline = said
        elif self._offline and status.state in ("catching-up", "live"):
            self._offline = ""
            note("connected again")

    def when_closed(self, ended: asyncio.Future[None]) -> None:
        self._writer.when_closed(ended)


def note(text: str) -> None:
    """Write a line to standard error."""
    click.echo(f"brain: {visible(text)}", err=True)
