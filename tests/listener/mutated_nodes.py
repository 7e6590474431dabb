"""Batch sources that each lack one rule of the protocol, named like the mutants of the model."""

from __future__ import annotations

from brain.database.log import Log
from brain.listener.notifications import Notifications
from tests.listener.notification_model import Step
from tests.listener.stepped_node import (
    FOR_EVER_SECONDS,
    SteppedLog,
    SteppedNotifications,
    SteppedSource,
)


class SleepsAtOnce(SteppedSource):
    async def _rest(self, notifications: Notifications, log: Log, looked_at: float) -> bool:
        if notifications.is_parked:
            return await notifications.wait(FOR_EVER_SECONDS)
        await notifications.park()
        return False


class LogThatTrustsTheXmax(SteppedLog):
    async def begun_transaction(self) -> int:
        async with self.turns.step(Step.BEGIN):
            row = await self._row(
                "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS id"
            )
            return int(row["id"])


class TrustsTheXmax(SteppedSource):
    log_type = LogThatTrustsTheXmax


class BeginsBeforeItParks(SteppedSource):
    async def _rest(self, notifications: Notifications, log: Log, looked_at: float) -> bool:
        if notifications.is_parked:
            return await super()._rest(notifications, log, looked_at)
        self._settles_at = await log.begun_transaction()
        await notifications.park()
        return False


class DoesNotReadOnceMore(SteppedSource):
    async def _rest(self, notifications: Notifications, log: Log, looked_at: float) -> bool:
        was_settling = self._settles_at is not None
        was_notified = await super()._rest(notifications, log, looked_at)
        if was_settling and self._settles_at is None:
            return await notifications.wait(FOR_EVER_SECONDS)
        return was_notified


class ParksAfterItsLastRead(SteppedSource):
    async def _rest(self, notifications: Notifications, log: Log, looked_at: float) -> bool:
        if not notifications.is_parked:
            await notifications.park()
            settles_at = await log.begun_transaction()
            while await log.oldest_transaction() < settles_at:
                await notifications.wait(0)
        return await notifications.wait(FOR_EVER_SECONDS)


class NotificationsThatListenLate(SteppedNotifications):
    listens = False

    async def listen(self) -> None:
        pass

    async def wait(self, seconds: float) -> bool:
        if seconds == FOR_EVER_SECONDS and not self.listens:
            self.listens = True
            await super().listen()
        return await super().wait(seconds)


class ListensAfterItsLastRead(SteppedSource):
    notifications_type = NotificationsThatListenLate


class NotificationsThatForget(SteppedNotifications):
    def fall_asleep(self) -> None:
        self._wake_up.clear()
        self._was_woken = False
        self.turns.taken.append(Step.PAUSE)
        super().fall_asleep()


class ForgetsANotification(SteppedSource):
    notifications_type = NotificationsThatForget
