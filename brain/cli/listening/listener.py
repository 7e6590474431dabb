"""Listens to channels until there is a reason to end."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from brain.cli.listening.errors import EndedBySignal, GaveUp, ListenClosed, ListenRefused
from brain.cli.listening.output import Output
from brain.client import (
    Brain,
    BrainClientError,
    Change,
    Closed,
    InvalidUrl,
    Refused,
    Status,
    Subscription,
)
from brain.errors import BrainError, UsageError

# Of these there may be one without anything having happened.
UNCOUNTED = frozenset({"live", "snapshot-end", "reset"})


@dataclass(frozen=True, slots=True)
class Request:
    """What to listen to, and until when."""

    url: str
    channels: Sequence[str]
    token: str | Callable[[], str] | None = field(default=None, repr=False)
    where: dict[str, Any] | None = None
    key: Any = None
    snapshot: bool = False
    since: float | None = None
    after: str | None = None
    cursor_file: str | None = None
    count: int | None = None
    """End after so many rows, changes and messages."""
    until_live: bool = False
    """End once everything has come that there was at the beginning."""
    give_up_seconds: float | None = None
    """End when there was no connection for so long."""


async def listen(request: Request, output: Output) -> None:
    """
    Show what comes until the request is fulfilled.

    Raises BrainError, or what the output raises.
    """
    try:
        await Listener(request, output).run()
    except InvalidUrl as error:
        raise UsageError(str(error)) from error
    except Refused as error:
        raise ListenRefused(str(error)) from error
    except Closed as error:
        raise ListenClosed(str(error)) from error
    except BrainClientError as error:
        raise BrainError(str(error)) from error


class Listener:
    """Follows each channel in a task of its own."""

    def __init__(self, request: Request, output: Output) -> None:
        self._request = request
        self._output = output
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._subscriptions: list[Subscription[dict[str, Any]]] = []
        self._left = request.count
        self._being_shown = 0
        """How many subscriptions have a change in hand."""
        self._reached_at = time.monotonic()
        """When Brain was reached last, while it is not live."""
        self._silence_timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Return when the request is fulfilled."""
        request = self._request
        async with Brain(
            request.url,
            token=request.token,
            cursor_file=request.cursor_file,
            on_status=self._on_status,
        ) as brain:
            self._subscriptions = [
                brain.subscribe(
                    channel,
                    where=request.where,
                    key=request.key,
                    snapshot=request.snapshot,
                    since=request.since,
                    after=request.after,
                    decimals=True,
                )
                for channel in request.channels
            ]
            self._watch_silence()
            await self._run_all()
            if self._left != 0:
                for each in self._subscriptions:
                    await each.store_cursor()

    async def _run_all(self) -> None:
        """Follow all of them until one fails, or the end is reached."""
        tasks = [asyncio.create_task(self._follow(each)) for each in self._subscriptions]
        self._end_on_signals()
        self._output.when_closed(self._ended)
        try:
            await ended(tasks, self._ended)
        finally:
            self._end()
            self._ended.exception()  # retrieved, whatever comes first
            self._stop_watching()
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError, Exception):
                    await task

    async def _follow(self, subscription: Subscription[dict[str, Any]]) -> None:
        async for change in subscription:
            if self._left == 0:
                return  # it is not shown: the next run gets it
            is_last = self._is_last(change)
            self._reached_at = time.monotonic()
            self._being_shown += 1
            await self._output.show(change)
            self._being_shown -= 1
            if is_last:
                await subscription.store_cursor()
                self._end()
                return
            self._end_if_live()

    def _is_last(self, change: Change[Any]) -> bool:
        if self._left is None or change.op in UNCOUNTED:
            return False
        self._left -= 1
        return self._left == 0

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _end_if_live(self) -> None:
        """End if all there was has been shown, and nothing more is asked for."""
        if self._request.until_live and not self._being_shown:
            if all(each.is_live for each in self._subscriptions):
                self._end()

    def _on_status(self, status: Status) -> None:
        if self._ended.done():
            return
        self._output.report(status)
        if status.state == "live":
            self._stop_watching()
            # After what this status came with: the subscription has it in hand by then.
            self._loop.call_soon(self._end_if_live)
        elif self._silence_timer is None:
            self._reached_at = time.monotonic()
            self._watch_silence()

    def _end_on_signals(self) -> None:
        """Have a signal end the command in order: nothing is printed by halves."""

        def end(number: int) -> None:
            if not self._ended.done():
                self._ended.set_exception(EndedBySignal(number))

        if sys.platform != "win32":
            for number in (signal.SIGINT, signal.SIGTERM):
                self._loop.add_signal_handler(number, end, number)

    def _watch_silence(self) -> None:
        """Give up when Brain has not been reached for too long, unless it is live by then."""
        seconds = self._request.give_up_seconds
        if seconds is not None and self._silence_timer is None:
            self._silence_timer = self._loop.call_later(seconds, self._check_silence, seconds)

    def _check_silence(self, seconds: float) -> None:
        left = self._reached_at + seconds - time.monotonic()
        self._silence_timer = None
        if left > 0:
            self._silence_timer = self._loop.call_later(left, self._check_silence, seconds)
        elif not self._ended.done():
            self._ended.set_exception(GaveUp(f"Brain was not reached for {seconds:g} s"))

    def _stop_watching(self) -> None:
        if self._silence_timer is not None:
            self._silence_timer.cancel()
            self._silence_timer = None


async def ended(tasks: Sequence[asyncio.Task[None]], end: asyncio.Future[None]) -> None:
    """Return once `end` is there; raises what it, or a task, fails with."""
    waited_for: set[asyncio.Future[None]] = {*tasks, end}
    while not end.done():
        done, waited_for = await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
    end.result()
