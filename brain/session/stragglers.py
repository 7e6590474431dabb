"""The subscriptions of one client of brain.v1 that are behind their connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from brain.close_codes import CloseCode
from brain.errors import ConnectionEnded, CursorLost, SlowConsumer
from brain.hub.subscriber import Subscriber
from brain.message.commands import Refuse
from brain.message.cursor import Cursor
from brain.message.event import Event
from brain.message.rendering import Encoding
from brain.message.subscription_encoding import SubscriptionEncoding
from brain.message.subscription_set import subscription_set
from brain.message.v1_format import V1
from brain.session.catch_up import CatchUp
from brain.session.sources import Sources
from brain.session.topic_subscriptions import (
    Straggler,
    TopicSubscription,
    TopicSubscriptions,
    first_page,
)
from brain.session.transport_protocol import Transport


class Stragglers:
    """
    Begins, feeds and ends stragglers, and joins those to the connection that have caught up.

    Each has a subscriber of its own in the hub, on the transport of the connection.
    """

    __slots__ = (
        "_answer_awaited",
        "_close",
        "_connection",
        "_encoding",
        "_hub",
        "_on_failure",
        "_on_joined",
        "_page_encoding",
        "_send",
        "_sources",
        "_subscriptions",
        "_transport",
    )

    def __init__(
        self,
        subscriptions: TopicSubscriptions,
        sources: Sources,
        transport: Transport,
        encoding: Encoding,
        page_encoding: SubscriptionEncoding,
        *,
        send: Callable[[str], None],
        close: Callable[[CloseCode, str], None],
        on_failure: Callable[[TopicSubscription, Refuse], None],
        on_joined: Callable[[Sequence[TopicSubscription]], None],
        answer_awaited: Callable[[], None],
    ) -> None:
        """
        `on_failure` ends a subscription whose past or rows cannot be read.

        `on_joined` is called with those that are stragglers no more. `answer_awaited` is called
        when any may have got further.
        """
        self._subscriptions = subscriptions
        self._sources = sources
        self._hub = sources.hub
        self._transport = transport
        self._encoding = encoding
        self._page_encoding = page_encoding
        self._send = send
        self._close = close
        self._on_failure = on_failure
        self._on_joined = on_joined
        self._answer_awaited = answer_awaited
        self._connection: Subscriber | None = None

    def start(self, connection: Subscriber) -> None:
        """Begin with the subscriber of the connection, to which stragglers are joined."""
        self._connection = connection
        connection.on_live = self._join

    def stop(self) -> None:
        """End all of them, and make no more callbacks."""
        self._connection = None
        for subscription in self._subscriptions:
            self.end(subscription)
        # Otherwise this and its session would keep each other in memory.
        self._send = self._close = self._on_failure = ignore
        self._on_joined = self._answer_awaited = ignore

    def begin(self, subscription: TopicSubscription, after: Cursor | None) -> None:
        """Make a subscription a straggler, behind `after` or at the place of the hub."""
        assert self._connection is not None
        on_gap = partial(self.on_gap, subscription)
        subscriber = self._hub.subscribe(
            self._encoding,
            subscription_set(frozenset({subscription.handle.topic})),
            self._transport,
            on_gap,
            after=after,
            user=self._connection.user,
            on_live=self._join,
        )
        subscriber.is_paused = self._connection.is_paused
        catch_up = CatchUp(
            subscriber,
            self._sources,
            self._transport,
            on_gap=on_gap,
            close=partial(self._fail, subscription),
            has_cursor=after is not None,
        )
        if subscription.command.wants_snapshot:
            subscriber.reload = partial(self._on_resets, subscription)
        subscription.straggler = Straggler(subscriber, catch_up)

    def catch_up(self, subscription: TopicSubscription, *, with_rows: bool) -> None:
        """Send a straggler the rows and what follows them, or what follows its cursor."""
        assert subscription.straggler is not None
        catch_up, handle = subscription.straggler.catch_up, subscription.handle
        if with_rows:
            request = first_page(subscription.command, handle.topic)
            catch_up.send_pages(
                request,
                handle,
                self._page_encoding,
                with_history=subscription.command.since_seconds is not None,
            )
        else:
            catch_up.resume()

    def end(self, subscription: TopicSubscription) -> None:
        """Give up what a subscription is being sent; one that is no straggler is left alone."""
        straggler, subscription.straggler = subscription.straggler, None
        if straggler is not None:
            straggler.catch_up.cancel()
            self._hub.unsubscribe(straggler.subscriber)

    def on_gap(self, subscription: TopicSubscription, reason: CursorLost | ConnectionEnded) -> None:
        """Send a straggler a reset, and go on from the hub's place."""
        straggler = subscription.straggler
        if straggler is None:
            return
        if isinstance(reason, SlowConsumer):
            self._close(reason.close_code, str(reason))
            return
        self._hub.restart(straggler.subscriber)
        with_rows = subscription.command.wants_snapshot
        cursor = None if with_rows else straggler.subscriber.cursor
        self._send(V1.subscription_reset(subscription.handle, str(reason), cursor))
        self.catch_up(subscription, with_rows=with_rows)

    def _on_resets(self, subscription: TopicSubscription, _: Sequence[Event]) -> None:
        """Send a straggler the rows again."""
        if subscription.straggler is not None:
            self._hub.restart(subscription.straggler.subscriber)
            self.catch_up(subscription, with_rows=True)

    def pause_writing(self) -> None:
        for straggler in self._all():
            self._hub.pause_writing(straggler.subscriber)

    def resume_writing(self) -> None:
        for straggler in self._all():
            self._hub.resume_writing(straggler.subscriber)
            straggler.catch_up.resume_writing()

    def assign_user(self, user: str) -> None:
        """Send those without a user the private messages of `user`, too."""
        for straggler in self._all():
            if straggler.subscriber.user is None:
                self._hub.assign_user(straggler.subscriber, user)

    def cursors(self) -> list[Cursor]:
        """Return the place of each."""
        return [self._hub.cursor_of(one.subscriber) for one in self._all()]

    def _all(self) -> list[Straggler]:
        return [one.straggler for one in self._subscriptions if one.straggler is not None]

    def _fail(self, subscription: TopicSubscription, code: CloseCode, reason: str) -> None:
        """End a subscription whose past or rows cannot be read; close a client that fails."""
        if code not in (CloseCode.LOG_UNAVAILABLE, CloseCode.SNAPSHOT_TOO_LARGE):
            self._close(code, reason)
            return
        command = subscription.command
        refusal = Refuse(
            reason,
            "snapshot_unavailable" if command.wants_snapshot else "unavailable",
            command.id,
        )
        self._on_failure(subscription, refusal)

    def _join(self) -> None:
        """Go on with subscriptions that have caught up where the connection is."""
        if self._connection is None:
            return
        stragglers = {one: one.straggler.subscriber for one in self._subscriptions if one.straggler}
        caught_up = [one for one, each in stragglers.items() if self._hub.keeps_up(each)]
        if not self._hub.keeps_up(self._connection):
            # They wait: of the subscribers on one transport, no other may be in a cohort, because
            # all of them pause as soon as one of them is written to and pauses.
            for one in caught_up:
                self._hub.pause_writing(stragglers[one])
            return
        for one in caught_up:
            self.end(one)
        if caught_up:
            self._on_joined(caught_up)
        for each in [each for each in stragglers.values() if each.is_paused]:
            self._hub.resume_writing(each)
        self._answer_awaited()


def ignore(*_: object) -> None:
    """Take the place of a callback."""
