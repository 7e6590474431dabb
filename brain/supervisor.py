"""
Several processes that serve on one port, and the one that watches over them.

uvicorn brings a supervisor, which is not this: when it is killed its workers live on and hold the
port, a worker that dies is started again at once and for ever, SIGHUP starts all anew, its exit
status is always 0, and it does not say when all are ready. Workers are forked: they share the
memory of what has been imported, and the next one listens a moment after the last one has died.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NoReturn

from brain.listener.backoff import delays

LOOK_SECONDS = 0.1
# A worker that has served for so long did not fail at the start.
STEADY_SECONDS = 5.0
# How often in a row every worker may fail before it is no use to start another.
MOST_FAILURES = 4
# How long a worker may take to leave, beside the time that its clients have for that.
SLACK_SECONDS = 5.0
# How long it may take when the supervisor is gone or in a hurry.
HURRY_SECONDS = 1.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Worker:
    """One of the processes that serve, as it sees itself."""

    number: int
    """From 1 on; whoever replaces a worker has its number."""
    sockets: list[socket.socket]
    """Where it listens."""
    ready: Callable[[], None]
    """To be called once it can be reached."""
    is_over: Callable[[], bool]
    """To be asked many times a second: whether it is to end."""


@dataclass
class Post:
    """Where one worker serves after the other, as the supervisor sees it."""

    number: int
    sockets: list[socket.socket]
    """They outlive a worker: whoever connects meanwhile is served by the next one."""
    process_id: int | None = None
    pipe: int = -1
    """A byte comes when the worker is ready, and the end of the file when it has ended."""
    ready_at: float | None = None
    failures: int = 0
    """How many workers have ended in a row, none of them steady."""
    start_at: float = 0.0
    pauses: Iterator[float] = field(default_factory=delays)

    @property
    def is_steady(self) -> bool:
        return self.ready_at is not None and time.monotonic() - self.ready_at >= STEADY_SECONDS


class Supervisor:
    """Starts workers, starts them again when they end, and ends them all in order."""

    def __init__(
        self,
        sockets: Sequence[list[socket.socket]],
        work: Callable[[Worker], int],
        *,
        announce: Callable[[], None],
        is_pointless: Callable[[], bool],
        grace_seconds: float,
    ) -> None:
        """
        `work` is what a worker does, in a process of its own; it returns the exit status.

        There is one worker for each list of `sockets`. `announce` is called once, when all are
        ready. Clients have `grace_seconds` to leave at the end.
        """
        self._posts = [Post(number, own) for number, own in enumerate(sockets, start=1)]
        self._work = work
        self._announce: Callable[[], None] | None = announce
        self._is_pointless = is_pointless
        self._grace_seconds = grace_seconds
        self._signals = 0
        """How often this process was told to end."""
        self._is_ending = False
        self._lifeline, self._end_of_lifeline = os.pipe()
        """Workers read the one end; the other is this process's alone, and is never written to."""

    def run(self) -> int:
        """
        Serve until a signal, or until it `is_pointless`; return the exit status.

        From now on signals are only noted.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note_signal)
        is_hopeless = False
        while not (self._signals or is_hopeless or self._is_pointless()):
            for post in self._posts:
                if post.process_id is None and post.start_at <= time.monotonic():
                    self._start(post)
            self._look()
            if self._announce and all(post.ready_at is not None for post in self._posts):
                self._announce()
                self._announce = None
            is_hopeless = all(post.failures >= MOST_FAILURES for post in self._posts)
        if is_hopeless:
            logger.critical("giving up: every worker ended %d times in a row", MOST_FAILURES)
        self._end()
        return 1 if is_hopeless else 0

    def _note_signal(self, *_: object) -> None:
        self._signals += 1

    def _start(self, post: Post) -> None:
        sys.stdout.flush()  # what is buffered would be printed by both
        pipe, ready = os.pipe()
        try:
            process_id = os.fork()
        except OSError as error:
            os.close(pipe)
            self._fail(post, f"cannot be started: {error.strerror}")
        else:
            if process_id == 0:
                self._become_worker(post, ready)
            post.process_id, post.pipe = process_id, pipe
        os.close(ready)

    def _become_worker(self, post: Post, ready: int) -> NoReturn:
        status = 1
        try:
            os.close(self._end_of_lifeline)
            for other in self._posts:
                for listener in other.sockets:
                    if listener not in post.sockets:
                        listener.close()
            abandoned = threading.Event()
            threading.Thread(target=self._watch_lifeline, args=[abandoned], daemon=True).start()
            status = self._work(
                Worker(
                    post.number,
                    post.sockets,
                    ready=lambda: say(ready),
                    is_over=lambda: self._signals > 0 or abandoned.is_set(),
                )
            )
        except SystemExit:
            pass  # uvicorn has logged why the application did not start
        except BaseException:
            logger.critical("worker %d died", post.number, exc_info=True)
        finally:
            # Past all that the supervisor has open, which is not this process's to close.
            os._exit(status)

    def _watch_lifeline(self, abandoned: threading.Event) -> None:
        """In a worker: end soon after the supervisor has gone, whatever else is going on."""
        os.read(self._lifeline, 1)
        abandoned.set()
        time.sleep(HURRY_SECONDS)
        os._exit(1)

    def _look(self) -> None:
        """Wait a moment for workers to become ready, or to end."""
        pipes = [post.pipe for post in self._posts if post.process_id is not None]
        for pipe in select.select(pipes, [], [], LOOK_SECONDS)[0]:
            (post,) = (each for each in self._posts if each.pipe == pipe)
            if os.read(pipe, 1):
                post.ready_at = time.monotonic()
                logger.info("worker %d is process %s", post.number, post.process_id)
            else:
                self._bury(post)
        for post in self._posts:
            if post.failures and post.is_steady:
                post.failures, post.pauses = 0, delays()

    def _bury(self, post: Post) -> None:
        assert post.process_id is not None
        process_id, status = os.waitpid(post.process_id, 0)
        os.close(post.pipe)
        post.process_id, post.pipe, post.ready_at = None, -1, None
        if not (self._signals or self._is_ending):
            told = told_status(os.waitstatus_to_exitcode(status))
            self._fail(post, f"(process {process_id}) {told}")

    def _fail(self, post: Post, reason: str) -> None:
        post.failures += 1
        pause = next(post.pauses)
        post.start_at = time.monotonic() + pause
        logger.warning("worker %d %s; next try in %.1f s", post.number, reason, pause)

    def _end(self) -> None:
        """End all workers: in order, or at once after another signal, or by force."""
        self._is_ending = True
        for post in self._posts:
            for listener in post.sockets:
                listener.close()
        signals = self._signals
        self._send(signal.SIGTERM)
        self._wait(self._grace_seconds + SLACK_SECONDS, lambda: self._signals > signals)
        os.close(self._end_of_lifeline)
        self._wait(2 * HURRY_SECONDS)
        self._send(signal.SIGKILL)
        self._wait(SLACK_SECONDS)

    def _send(self, number: signal.Signals) -> None:
        for post in self._posts:
            if post.process_id is not None:
                os.kill(post.process_id, number)

    def _wait(self, seconds: float, is_enough: Callable[[], bool] = lambda: False) -> None:
        deadline = time.monotonic() + seconds
        while any(post.process_id is not None for post in self._posts):
            if is_enough() or time.monotonic() > deadline:
                return
            self._look()


def say(pipe: int) -> None:
    with suppress(BrokenPipeError):  # the supervisor has gone, which is noticed elsewhere
        os.write(pipe, b".")


def told_status(status: int) -> str:
    if status < 0:
        return f"was killed by signal {-status}"
    return f"ended with status {status}"
