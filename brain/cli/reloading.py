"""SIGHUP has a running Brain read its settings again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from starlette.applications import Starlette

from brain.errors import BrainError
from brain.log_events import RELOAD_FAILED, RESTART_NEEDED, SETTINGS_RELOADED
from brain.process.log_config import set_level
from brain.process.service_manager import ServiceManager
from brain.reload import Change, LiveSettings, change_to, require_keys, variables
from brain.settings import Settings

logger = logging.getLogger(__name__)


class SettingsReload:
    """Reads the settings again when that is due, and has this process go on with them."""

    def __init__(
        self,
        settings: Settings,
        read: Callable[[], Settings],
        is_due: Callable[[], bool],
        service: ServiceManager | None = None,
    ) -> None:
        """
        `read` returns the settings as they are by now. It raises `UsageError`.

        A worker has no `service`, and leaves it to its supervisor to say what needs a restart.
        """
        self.settings = settings
        """Those that this process goes by."""
        self.is_due = is_due
        self.read = read
        self._service = service

    async def apply_to(self, live: LiveSettings) -> Settings | None:
        """Have an application go on with other settings; return them, or None if they are wrong."""
        self._begin()
        try:
            self._finish(await live.become(self.read()))
        except BrainError as error:
            self._fail(error)
            return None
        return self.settings

    def apply_to_workers(self) -> bool:
        """Return True if workers are to do the same; new ones have other settings from now on."""
        self._begin()
        try:
            new = self.read()
            change = change_to(new, self.settings)
            # A worker that is started later has no former keys to go on with.
            asyncio.run(require_keys(change.settings, self.settings))
        except BrainError as error:
            self._fail(error)
            return False
        self._finish(change)
        return True

    def forward(self) -> bool:
        """Read the settings again if that is due; return True if workers are to do the same."""
        return self.is_due() and self.apply_to_workers()

    def _begin(self) -> None:
        if self._service is not None:
            self._service.reloading()

    def _finish(self, change: Change) -> None:
        self.settings = change.settings
        set_level(self.settings.log_level)
        applied, pending = variables(change.applied), variables(change.pending)
        what = ", ".join(applied) or "nothing has changed that takes effect without a restart"
        SETTINGS_RELOADED.log(logger, "the settings were read again: %s", what, changed=applied)
        if self._service is not None:
            if pending:
                text, names = "a restart is needed to change %s", ", ".join(pending)
                RESTART_NEEDED.log(logger, text, names, changed=pending)
            self._service.ready()

    def _fail(self, error: BrainError) -> None:
        RELOAD_FAILED.log(logger, "the settings stay as they were: %s", str(error))
        if self._service is not None:
            self._service.ready()


class AppReload:
    """The same for a server: see `brain.process.server.Reload`."""

    def __init__(self, reload: SettingsReload, app: Starlette) -> None:
        self._reload = reload
        self._live: LiveSettings = app.state.live_settings
        self.is_due = reload.is_due

    async def run(self) -> Settings | None:
        return await self._reload.apply_to(self._live)
