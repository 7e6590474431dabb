"""Listeners that each lack one rule of the protocol, named like their likes in the model."""

from __future__ import annotations

from brain.database.log import Log
from brain.listener.bell import Bell
from tests.listener.bell_model import Step
from tests.listener.stepped_node import (
    FOR_EVER_SECONDS,
    SteppedBell,
    SteppedListener,
    SteppedLog,
)


class SleepsAtOnce(SteppedListener):
    async def _rest(self, bell: Bell, log: Log, looked_at: float) -> bool:
        if bell.is_parked:
            return await bell.wait(FOR_EVER_SECONDS)
        await bell.park()
        return False


class LogThatTrustsTheXmax(SteppedLog):
    async def begun_transaction(self) -> int:
        async with self.turns.step(Step.BEGIN):
            row = await self._row(
                "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS id"
            )
            return int(row["id"])


class TrustsTheXmax(SteppedListener):
    log_type = LogThatTrustsTheXmax


class BeginsBeforeItParks(SteppedListener):
    async def _rest(self, bell: Bell, log: Log, looked_at: float) -> bool:
        if bell.is_parked:
            return await super()._rest(bell, log, looked_at)
        self._settles_at = await log.begun_transaction()
        await bell.park()
        return False


class DoesNotReadOnceMore(SteppedListener):
    async def _rest(self, bell: Bell, log: Log, looked_at: float) -> bool:
        was_settling = self._settles_at is not None
        was_rung = await super()._rest(bell, log, looked_at)
        if was_settling and self._settles_at is None:
            return await bell.wait(FOR_EVER_SECONDS)
        return was_rung


class ParksAfterItsLastRead(SteppedListener):
    async def _rest(self, bell: Bell, log: Log, looked_at: float) -> bool:
        if not bell.is_parked:
            await bell.park()
            settles_at = await log.begun_transaction()
            while await log.oldest_transaction() < settles_at:
                await bell.wait(0)
        return await bell.wait(FOR_EVER_SECONDS)


class BellThatListensLate(SteppedBell):
    listens = False

    async def listen(self) -> None:
        pass

    async def wait(self, seconds: float) -> bool:
        if seconds == FOR_EVER_SECONDS and not self.listens:
            self.listens = True
            await super().listen()
        return await super().wait(seconds)


class ListensAfterItsLastRead(SteppedListener):
    bell_type = BellThatListensLate


class BellThatForgets(SteppedBell):
    def fall_asleep(self) -> None:
        self._rang.clear()
        self._was_woken = False
        self.turns.taken.append(Step.PAUSE)
        super().fall_asleep()


class ForgetsTheBell(SteppedListener):
    bell_type = BellThatForgets
