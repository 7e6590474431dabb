"""What `brain listen` does with its options."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from brain.cli.listening.conditions import parsed_filter, parsed_key
from brain.cli.listening.errors import EndedBySignal
from brain.cli.listening.json_lines import json_line
from brain.cli.listening.line_writer import LineWriter
from brain.cli.listening.listener import Request, listen
from brain.cli.listening.moments import parsed_duration, seconds_since
from brain.cli.listening.output import LineOutput
from brain.cli.listening.readable_lines import readable_line
from brain.cli.listening.token_source import token_source
from brain.errors import UsageError
from brain.process.signals import end_on_signals

Form = Literal["json", "lines", "table"]


def run(
    *,
    channels: Sequence[str],
    conditions: Sequence[str],
    key: str | None,
    since: str | None,
    after: str | None,
    give_up: str | None,
    form: Form | None,
    token: str | None,
    token_file: str | None,
    **others: Any,
) -> None:
    """Listen as the options say; raises BrainError, or exits. `others` are those of a Request."""
    if since is not None and after is not None:
        raise UsageError("--since and --after both say where to begin: one of them is enough")
    request = Request(
        channels=list(dict.fromkeys(channels)),
        token=token_source(token, token_file),
        where=parsed_filter(conditions),
        key=None if key is None else parsed_key(key),
        since=None if since is None else seconds_since(since, datetime.now(UTC)),
        after=after,
        give_up_seconds=None if give_up is None else parsed_duration(give_up),
        **others,
    )
    run_request(request, form or ("table" if is_terminal() else "json"))


def is_terminal() -> bool:
    """Return True if a table can be drawn on standard output."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def run_request(request: Request, form: Form) -> None:
    """Listen to the end; a reader that has ended is one, without an error."""
    # What they say, the status of the connection says too.
    logging.getLogger("brain.client").addHandler(logging.NullHandler())
    logging.getLogger("brain.client").propagate = False
    end_on_signals()
    try:
        asyncio.run(listen_as_table(request) if form == "table" else listen_as_lines(request, form))
    except EndedBySignal as ended:
        sys.exit(128 + ended.number)
    except BrokenPipeError:
        sys.exit(128 + signal.SIGPIPE)


async def listen_as_lines(request: Request, form: Form) -> None:
    line_of: Callable[[Any], str] = json_line if form == "json" else readable_line
    await listen(request, LineOutput(line_of, LineWriter(sys.stdout.fileno())))


async def listen_as_table(request: Request) -> None:
    # rich takes a while to import.
    from rich.console import Console

    from brain.cli.listening.live_table import LiveTable

    if not is_terminal():
        raise UsageError("--table needs a terminal: use --json or --lines")
    table = LiveTable(request.channels, has_snapshot=request.snapshot, console=Console())
    async with table.drawn():
        await listen(request, table)
