"""
HTTP under uvicorn, within limits.

It subclasses parts of uvicorn that are not public, hence the check of its version. What it mends in
uvicorn 0.54: a client that stopped reading is never closed; a request may take for ever, and so may
the time between two of them; trailers count as headers, and neither they nor the requests that wait
have a limit; and a client that vanishes while several requests wait is logged as an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from brain.transport.direct import is_encrypted, pause_at_once
from brain.transport.limits import TransportLimits, stop

MOST_HEAD_BYTES = 64 * 1024
# Of one connection: those that came before the answer to an earlier one.
MOST_WAITING_REQUESTS = 100


class HttpProtocol(HttpToolsProtocol):
    """Speaks HTTP, and limits the time of a request and of reading what is answered."""

    def __init__(
        self,
        *arguments: Any,
        limits: TransportLimits,
        is_draining: Callable[[], bool] = lambda: False,
        **settings: Any,
    ) -> None:
        super().__init__(*arguments, **settings)
        self._limits = limits
        self._is_draining = is_draining
        self._head_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._bodyless_bytes = 0
        """Those received since the head of the request, or since the last piece of its body."""
        self._running_cycle: RequestResponseCycle | None = None
        """The request that the application has; later ones wait for its answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        # What the kernel takes no more of is unread: all of it, and not what exceeds a buffer.
        pause_at_once(self.transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timers()
        # uvicorn says so only to the request that came last, and the application would go on
        # writing the answer to an earlier one.
        if (cycle := self._running_cycle) is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)
        self._end_cycles()

    def data_received(self, data: bytes) -> None:
        awaited = self._head_timer
        self._bodyless_bytes += len(data)
        super().data_received(data)
        if self._body_timer is not None and self._bodyless_bytes > MOST_HEAD_BYTES:
            self.transport.abort()  # trailers or the extension of a chunk, without an end
        if awaited is None and self._is_idle():
            # Such as an empty line: uvicorn has stopped its timer, and no request begins.
            self._await_head()
            awaited = self._head_timer
        if awaited is not None and self._head_timer is awaited:  # it was head, and nothing else
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self.transport.abort()

    def on_message_begin(self) -> None:
        if self._head_timer is None:  # it is not the first request
            self._await_head()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # uvicorn would append a trailer to the headers, and Authorization and Host must never be
        # trailers: RFC 9110, section 6.5.1.
        if self._head_timer is not None:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._end_head()
        if len(self.pipeline) >= MOST_WAITING_REQUESTS:
            self.transport.abort()
            return
        self._bodyless_bytes = 0
        self._body_timer = self._abort_in_time()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._bodyless_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._end_body()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self._stop_timers()
        # Under TLS the transport keeps the order, and may still buffer its own handshake.
        is_unread = self.transport.get_write_buffer_size() and not is_encrypted(self.transport)
        if self._is_answering() or is_unread:
            # An answer would end up among the frames. A client has to wait for it: RFC 6455,
            # section 4.1.
            self.transport.abort()
            return
        super().handle_websocket_upgrade()
        self._end_cycles()

    def pause_writing(self) -> None:
        super().pause_writing()
        stop(self._unread_timer)
        self._unread_timer = self.loop.call_later(
            self._limits.unread_timeout_seconds, self.transport.abort
        )

    def resume_writing(self) -> None:
        super().resume_writing()
        stop(self._unread_timer)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        async def run(scope: Scope, receive: Receive, send: Send) -> None:
            await cast(ASGIApp, app)(scope, receive, send)
            if cycle.response_started and not cycle.response_complete:
                # uvicorn would log it as an error, each time.
                cycle.disconnected = True
                self._end_unfinished()

        self._running_cycle = cycle
        if self._is_draining():
            # A client or a proxy that reuses connections finds another process with the next.
            cycle.keep_alive = False
        super()._start_asgi_task(cycle, cast(ASGI3Application, run))

    def _end_unfinished(self) -> None:
        """End the connection: the client reads an answer too slowly, and it was given up."""
        self.transport.abort()

    def _is_answering(self) -> bool:
        return self._running_cycle is not None and not self._running_cycle.response_complete

    def _is_idle(self) -> bool:
        """Return True between two requests: the last one is complete, and so is its answer."""
        return (
            self._head_timer is None
            and self._body_timer is None
            and not self._is_answering()
            and self.transport.get_protocol() is self
        )

    def _stop_timers(self) -> None:
        self._end_head()
        self._end_body()
        stop(self._unread_timer)
        self._unset_keepalive_if_required()

    def _end_cycles(self) -> None:
        """Let go of what refers to this in turn, and would wait for the garbage collector."""
        self.pipeline.clear()
        self.parser = self.cycle = self.scope = self.headers = None  # type: ignore[assignment]
        self._running_cycle = None

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self._abort_in_time()

    def _abort_in_time(self) -> asyncio.TimerHandle:
        return self.loop.call_later(self._limits.handshake_timeout_seconds, self.transport.abort)

    def _end_head(self) -> None:
        stop(self._head_timer)
        self._head_timer = None

    def _end_body(self) -> None:
        stop(self._body_timer)
        self._body_timer = None
