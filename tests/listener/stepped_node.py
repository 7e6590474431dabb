"""A real batch source on a real PostgreSQL that makes one call at a time, when released."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import asyncpg

from brain.database.log import Log, NewestBatch
from brain.listener.batch_source import BatchSource
from brain.listener.notifications import Notifications
from brain.listener.pace import Pace
from brain.message.cursor import Cursor
from brain.settings import Settings
from tests.listener.notification_model import Step

PATIENCE_SECONDS = 20.0
FOR_EVER_SECONDS = 3600.0

# The fallback poll never happens.
SETTINGS = Settings(idle_poll_seconds=FOR_EVER_SECONDS, busy_tick_seconds=0.0001)


class Turns:
    """Stops a task before each of its steps until the test releases it."""

    def __init__(self) -> None:
        self.taken: list[Step] = []
        """The completed steps."""
        self.is_asleep = False
        self._stopped = asyncio.Event()
        self._released = asyncio.Event()

    @asynccontextmanager
    async def step(self, *steps: Step) -> AsyncIterator[None]:
        """Wait until the task is released, then take these steps as one."""
        self._stopped.set()
        await self._released.wait()
        self._released.clear()
        yield
        self.taken += steps

    def fall_asleep(self) -> None:
        self.is_asleep = True
        self._stopped.set()

    async def arrive(self) -> None:
        """Return once the task is stopped before a step or asleep."""
        await self._stopped.wait()

    async def release(self) -> None:
        """Let the task take a step; return once it is stopped before the next one or asleep."""
        self._stopped.clear()
        self._released.set()
        await self.arrive()


class SteppedNotifications(Notifications):
    """Notifications that wait for release before each call, and never for a timeout."""

    def __init__(self, connection: asyncpg.Connection, turns: Turns) -> None:
        super().__init__(connection, PATIENCE_SECONDS)
        self.turns = turns
        self.count = 0
        self._count_seen = 0

    @property
    def is_notified(self) -> bool:
        """True if a notification has arrived since the last wait."""
        return self.count > self._count_seen

    async def listen(self) -> None:
        async with self.turns.step(Step.LISTEN, Step.REGISTER):
            await super().listen()

    async def park(self) -> None:
        async with self.turns.step(Step.PARK):
            await super().park()

    async def unpark(self) -> None:
        async with self.turns.step(Step.UNPARK):
            await super().unpark()

    async def wait(self, seconds: float) -> bool:
        if seconds < FOR_EVER_SECONDS:
            async with self.turns.step(Step.PAUSE):
                was_woken = await super().wait(0)
        else:
            async with self.turns.step(Step.SLEEP):
                self.fall_asleep()
                was_woken = await super().wait(FOR_EVER_SECONDS)
                self.turns.is_asleep = False
        self._count_seen = self.count
        return was_woken

    def fall_asleep(self) -> None:
        self.turns.fall_asleep()

    def wake(self, *_: object) -> None:
        self.count += 1
        super().wake()


class SteppedLog(Log):
    """A log that waits for release before each call, except those that read the recent past."""

    def __init__(self, connection: asyncpg.Connection, turns: Turns) -> None:
        super().__init__(connection, PATIENCE_SECONDS)
        self.turns = turns

    async def newest(self, cursor: Cursor) -> NewestBatch:
        async with self.turns.step(Step.READ):
            return await super().newest(cursor)

    async def flush(self) -> None:
        async with self.turns.step(Step.FLUSH):
            await super().flush()

    async def begun_transaction(self) -> int:
        async with self.turns.step(Step.BEGIN, Step.END):
            return await super().begun_transaction()

    async def oldest_transaction(self) -> int:
        async with self.turns.step(Step.CHECK):
            return await super().oldest_transaction()


class PaceOfReads(Pace):
    """A pace that is busy after the given reads, counted from 1."""

    def __init__(self, busy_reads: Collection[int]) -> None:
        super().__init__(1, 1)
        self._busy_reads = busy_reads
        self._reads = 0

    def note(self, *, changes: int, now: float) -> None:
        self._reads += 1
        self.is_busy = self._reads in self._busy_reads


class SteppedSource(BatchSource):
    """The real batch source with stepped notifications and a stepped log."""

    notifications_type: type[SteppedNotifications] = SteppedNotifications
    log_type: type[SteppedLog] = SteppedLog

    def __init__(
        self,
        listening: asyncpg.Connection,
        reading: asyncpg.Connection,
        busy_reads: Collection[int] = (),
    ) -> None:
        super().__init__("", SETTINGS)
        self._pace = PaceOfReads(busy_reads)
        self.turns = Turns()
        self.notifications = self.notifications_type(listening, self.turns)
        self.log = self.log_type(reading, self.turns)
        self._listening = listening
        self._count_reported = self._taken_reported = 0

    async def follow(self) -> None:
        async for _ in self._follow(self.notifications, self.log):
            pass

    async def step(self) -> None:
        """Make the next call, unless it is asleep."""
        if not self.turns.is_asleep:
            await self.turns.release()

    async def receive(self) -> None:
        """Receive the notifications that were sent, and wake up."""
        await self._listening.fetchval("SELECT 1")  # notifications arrive before the result
        while self.turns.is_asleep and self.notifications.is_notified:
            await asyncio.sleep(0)

    def news(self) -> list[str]:
        """Return the moves since the last call, in the words of the model."""
        notified = ["node 1 is notified"] if self.notifications.count > self._count_reported else []
        taken = [f"node 1 {step}" for step in self.turns.taken[self._taken_reported :]]
        self._count_reported, self._taken_reported = (
            self.notifications.count,
            len(self.turns.taken),
        )
        return notified + taken


Stepped = TypeVar("Stepped", bound=SteppedSource)


@asynccontextmanager
async def following(source: Stepped, listening: asyncpg.Connection) -> AsyncIterator[Stepped]:
    """Run a batch source to its first step; reset its listening connection afterwards."""
    task = asyncio.create_task(source.follow())
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await source.turns.arrive()
            yield source
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await listening.reset()
