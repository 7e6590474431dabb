"""A client that reads one subscription of brain.v1, and sends nothing."""

from __future__ import annotations

import asyncio

from brain.auth.identity import Identity
from brain.close_codes import CloseCode
from brain.errors import (
    HistoryLost,
    LogUnavailable,
)
from brain.hub.subscriber import Subscriber
from brain.message.commands import Command, OpenSubscription, RebindFilters, Refuse
from brain.message.cursor import LogStart
from brain.message.encodings import page_encoding_of
from brain.message.matching import ReadAccess, Topic
from brain.message.topic_handle import TopicHandle, topic_handle
from brain.message.v1_format import V1
from brain.session.admission import Admitted
from brain.session.channel_session import ChannelSession, SessionRequest
from brain.session.granting import COLUMNS_CHANGED, rebound_topics
from brain.session.session import SessionContext
from brain.session.sources import Sources
from brain.session.topic_subscriptions import first_page, names_of, topic_of


class StreamSession(ChannelSession):
    """
    One stream of events: one subscription, and so one place in the log.

    The client may be cut at any frame, and resumes after the last event id that it got. So a frame
    has an id only if everything up to there was sent. What comes before the end of a snapshot has
    none: a client that is cut meanwhile begins the snapshot anew.
    """

    __slots__ = ("_command", "_handle", "_keep_alive_timer")

    def __init__(
        self,
        admitted: Admitted,
        context: SessionContext,
        sources: Sources,
        command: OpenSubscription,
        topic: Topic,
        access: ReadAccess,
        changes: int | None = None,
        start: LogStart | None = None,
    ) -> None:
        """
        `topic` is what the client asks for by `command`, with this access.

        `start` is the place that it gives as a time.
        """
        request = SessionRequest(
            V1,
            names_of(command),
            after=command.after,
            start=start,
            wants_snapshot=command.wants_snapshot,
        )
        super().__init__(admitted, context, sources, request, access, changes)
        self._command = command
        self._handle = topic_handle(topic)
        admitted.counted.evaluate(topic.evaluated)
        self._keep_alive_timer: asyncio.TimerHandle | None = None

    def _topics(self, access: ReadAccess, identity: Identity | None = None) -> frozenset[Topic]:
        topic = topic_of(self._command, self._handle.topic.condition, access)
        return frozenset() if topic is None else frozenset({topic})

    def _greet(self, subscriber: Subscriber) -> None:
        super()._greet(subscriber)
        self._confirm_subscription()

    def _confirm_subscription(self, former: TopicHandle | None = None) -> None:
        columns = self._context.columns_of(self._command.channel)
        begins_with_rows = self._request.wants_snapshot and not self._request.after
        cursor = None if begins_with_rows and former is None else self._cursor()
        start = self._request.start
        since = None if start is None or former is not None else start.at
        self._send(V1.subscribed(self._command, self._handle, cursor, columns, former, since))

    def _continue(self, *, with_rows: bool) -> None:
        if self._subscriber is not None:
            self._subscriber.on_live = self._report_live
            self._keep_alive_later()
        if with_rows and self._catch_up is not None:
            encoding = page_encoding_of(self._transport.framing, self._context.problems)
            request = first_page(self._command, self._handle.topic)
            with_history = self._request.start is not None
            self._catch_up.send_pages(request, self._handle, encoding, with_history=with_history)
        else:
            super()._continue(with_rows=False)

    def _report_live(self) -> None:
        """Send the frame that the client has caught up, once."""
        if self._subscriber is not None:
            self._subscriber.on_live = None
            self._stop_keeping_alive()
            cursor = self._cursor()
            self._send(V1.live(self._handle, cursor), cursor)

    def _stop(self) -> None:
        self._stop_keeping_alive()
        super()._stop()

    def _keep_alive_later(self) -> None:
        """Until the client has caught up, the hub sends it no heartbeat."""
        self._stop_keeping_alive()
        loop = asyncio.get_running_loop()
        self._keep_alive_timer = loop.call_later(self._context.heartbeat_seconds, self._keep_alive)

    def _keep_alive(self) -> None:
        if self._subscriber is not None and not self._subscriber.is_paused:
            self._transport.write(self._transport.framing.keep_alive)
        self._keep_alive_later()

    def _stop_keeping_alive(self) -> None:
        if self._keep_alive_timer is not None:
            self._keep_alive_timer.cancel()
            self._keep_alive_timer = None

    def _reset(self, reason: str) -> None:
        with_rows = self._request.wants_snapshot
        cursor = None if with_rows else self._cursor()
        self._send(V1.subscription_reset(self._handle, reason, cursor))
        self._continue(with_rows=with_rows)

    def _change_access(self, access: ReadAccess) -> None:
        """Go on with what the client may read by now: from the beginning, or not at all."""
        topic = topic_of(self._command, self._handle.topic.condition, access)
        self._replace(topic or Refuse("", "not_allowed"))
        if self._is_open:
            super()._change_access(access)

    def rebind_filters(self, channels: frozenset[str]) -> None:
        if self._handle.topic.has_condition and self._command.channel in channels:
            self._enqueue(RebindFilters(channels))

    async def _execute(self, command: Command) -> None:
        if not isinstance(command, RebindFilters):
            await super()._execute(command)
            return
        former = self._handle
        try:
            granted = await rebound_topics([self._command], self._access, self._context)
        except LogUnavailable as reason:
            self.end(reason)
            return
        self._replace(granted[0])
        if self._is_open and self._handle is not former:
            self._change_subscriptions()
            self._on_gap(HistoryLost(COLUMNS_CHANGED))

    def _replace(self, granted: Topic | Refuse) -> None:
        """Give the subscription the number of another topic, or end the stream."""
        former = self._handle
        if isinstance(granted, Refuse):
            reason = granted.reason or f"not allowed to read {self._command.channel}"
            self._send(V1.unsubscribed(self._command.id, former.number, granted))
            if granted.reason:
                self._send(V1.error(granted))
            self.close(CloseCode.ACCESS_LOST, reason)
        elif granted != former.topic:
            self._handle = topic_handle(granted)
            self._confirm_subscription(former)
