"""Brain as an ASGI application, to mount in one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from brain.app import build_app, end_process
from brain.auth.authenticator import Authenticated, Authenticator, Connection
from brain.auth.hosts import hosts_of_embedded
from brain.auth.keys import needs_tokens
from brain.database.connection import translating_errors
from brain.database.preparation import prepare_database
from brain.database.url import UrlWithCommand, check_url
from brain.errors import BrainError, UsageError
from brain.settings import Settings
from brain.system import System, installed_systems, schemas_of, select_systems
from brain.transport.handshake import refuse
from brain.web.responses import error_response
from brain.web.services import Services

__all__ = ["Authenticated", "Authenticator", "BrainApp", "Connection", "Settings", "create_app"]

STOPPED = "Brain has stopped here: the log of the server says why"


def create_app(
    database_url: str | None = None,
    *,
    settings: Settings | None = None,
    authenticator: Authenticator | None = None,
    systems: Sequence[str] = (),
    on_failure: Callable[[BaseException], None] = end_process,
) -> BrainApp:
    """
    Return an ASGI application that serves the changes of a database.

    `settings` are those of the environment unless given; `database_url` is one of them. Without an
    `authenticator`, tokens are needed if the settings have a key, else everybody may do everything.
    `systems` are the names of those that are on, besides those of the settings. `on_failure` is
    called if something dies without which nothing is sent any more, with the reason; unless given,
    the process ends by SIGTERM, so that what supervises it starts it again.

    Raises `UsageError` for settings that are wrong together.
    """
    chosen = settings or Settings()
    url = database_url or chosen.database_url
    if url is None:
        raise UsageError("create_app needs a database_url, or BRAIN_DATABASE_URL or DATABASE_URL")
    check_url(url)
    if chosen.metrics_port is not None:
        raise UsageError(
            "BRAIN_METRICS_PORT is for `brain serve`: an application shows Brain's metrics at"
            " /metrics below its address if BRAIN_METRICS_TOKEN is set"
        )
    if chosen.database_password_command is not None:
        url = UrlWithCommand(url, chosen.database_password_command)
    # By default any word is a token if only this machine can connect: that is not known here.
    development_tokens = chosen.development_tokens or False
    chosen = chosen.model_copy(update={"development_tokens": development_tokens})
    names = [*systems, *chosen.systems]
    selected = select_systems(names, installed_systems()) if names else []
    return BrainApp(url, chosen, selected, authenticator, on_failure)


class BrainApp:
    """
    Serves the changes of a database while its context is entered.

    A server enters it by itself (`uvicorn module:app`). An application in which it is mounted
    enters it in its own lifespan: frameworks run that of the outermost application alone.
    """

    def __init__(
        self,
        url: str,
        settings: Settings,
        systems: Sequence[System],
        authenticator: Authenticator | None,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._url = url
        self._settings = settings
        self._systems = systems
        self._authenticator = authenticator
        self._on_failure = on_failure
        self._app = self._build()
        self._was_entered = False
        self._running: AsyncExitStack | None = None
        self._state: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        """Prepare the database and follow it. Raises `BrainError`."""
        if self._running is not None:
            raise RuntimeError("Brain is running already: enter its context once")
        if self._was_entered:
            self._app = self._build()
        self._was_entered = True
        with translating_errors(self._url):
            await prepare_database(self._url, self._settings, schemas_of(self._systems))
        async with AsyncExitStack() as stack:
            state = await stack.enter_async_context(self._app.router.lifespan_context(self._app))
            self._state = dict(state or {})
            self._running = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.drain()
        finally:  # also where the server does not wait for that
            running, self._running = self._running, None
            if running is not None:
                await running.__aexit__(kind, error, traceback)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._serve_lifespan(receive, send)
        elif self._running is None:
            raise RuntimeError(
                "Brain is not running: enter its context in the lifespan of the application that it"
                " is mounted in (async with live: yield)"
            )
        elif self._app.state.failure is None:
            # What the lifespan of the outer application has yielded is there for authenticators.
            state = {**scope.get("state", {}), **self._state}
            await self._app({**scope, "state": state}, receive, send)
        elif scope["type"] == "websocket":
            await refuse(WebSocket(scope, receive, send), 503, STOPPED)
        else:
            await error_response(STOPPED, 503)(scope, receive, send)

    async def drain(self) -> None:
        """
        Close all clients, within `drain_seconds`, so that not all of them come back at once.

        `/readyz` is 503 from now on. Events are delivered to those that are not closed yet. The end
        of the context does the same; many servers have closed all connections by then.
        """
        draining = self._services.draining
        draining.begin()
        await draining.close_sessions()

    async def _serve_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.__aenter__()
        except BrainError as error:
            await send({"type": "lifespan.startup.failed", "message": f"brain: {error}"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.__aexit__(None, None, None)
        await send({"type": "lifespan.shutdown.complete"})

    def _build(self) -> Starlette:
        is_open = self._authenticator is None and not needs_tokens(self._settings)
        return build_app(
            self._url,
            self._settings,
            self._systems,
            hosts=hosts_of_embedded(self._settings, is_open=is_open),
            authenticator=self._authenticator,
            on_failure=self._fail,
        )

    def _fail(self, failure: BaseException) -> None:
        registry = self._services.sessions.registry
        registry.close_oldest(registry.count, STOPPED)
        self._on_failure(failure)

    @property
    def _services(self) -> Services:
        services: Services = self._app.state.services
        return services
