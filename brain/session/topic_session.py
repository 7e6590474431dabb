"""A client of brain.v1: any number of subscriptions over one connection, each with a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from brain.auth.identity import Identity
from brain.close_codes import CloseCode
from brain.database.transactions import Outcome
from brain.errors import (
    AccessUndecided,
    LogUnavailable,
)
from brain.message.commands import (
    AwaitTransaction,
    CloseSubscription,
    Command,
    OpenSubscription,
    Publish,
    Reauthenticate,
    RebindFilters,
    Refuse,
    SetPresence,
)
from brain.message.cursor import END_OF_TICK, Cursor, LogStart
from brain.message.encodings import encoding_of, page_encoding_of
from brain.message.event import Event
from brain.message.matching import (
    TOO_MANY_COMBINATIONS,
    ReadAccess,
    Topic,
    has_too_many_combinations,
    is_reset,
)
from brain.message.subscription_set import SubscriptionSet, subscription_set
from brain.message.topic_handle import topic_handle
from brain.message.v1_format import CATCHING_UP, V1
from brain.session.admission import Admitted
from brain.session.awaited import MOST_AWAITED, AwaitedByClient, refusal_of
from brain.session.channel_session import ChannelSession, SessionRequest, parse_cursor
from brain.session.connection_limiter import TOO_MANY_TOGETHER
from brain.session.granting import COLUMNS_CHANGED, granted_topic, rebound_topics, start_of
from brain.session.joined_access import joined
from brain.session.publishing import publish
from brain.session.session import SessionContext
from brain.session.sources import Sources
from brain.session.stragglers import Stragglers
from brain.session.topic_subscriptions import (
    TopicSubscription,
    TopicSubscriptions,
    names_of,
    topic_of,
)


class TopicSession(ChannelSession):
    """
    One client of brain.v1.

    The hub has one subscriber for the connection, with all its topics. A subscription that begins
    elsewhere in the log, with a cursor or with rows, has one of its own until it has caught up.
    """

    __slots__ = ("_awaited", "_stragglers")

    _queued = (OpenSubscription, Publish, Reauthenticate)

    def __init__(
        self,
        admitted: Admitted,
        context: SessionContext,
        sources: Sources,
        access: ReadAccess,
        changes: int | None = None,
    ) -> None:
        super().__init__(admitted, context, sources, SessionRequest(V1), access, changes)
        self._subscriptions: TopicSubscriptions = TopicSubscriptions(
            context.limits.max_subscriptions
        )
        self._awaited = AwaitedByClient(
            sources.transactions,
            sources.hub,
            has_been_sent=self._has_been_sent,
            answer=self._answer_until,
        )
        self._stragglers = Stragglers(
            self._subscriptions,
            sources,
            admitted.transport,
            encoding_of(CATCHING_UP, admitted.transport.framing, context.problems),
            page_encoding_of(admitted.transport.framing, context.problems),
            send=self._send,
            close=self.close,
            on_failure=self._end_subscription,
            on_joined=self._on_joined,
            answer_awaited=self._awaited.answer,
        )

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stragglers.pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stragglers.resume_writing()

    def _start(self) -> None:
        super()._start()
        if self._subscriber is not None:
            self._stragglers.start(self._subscriber)
            self._subscriber.reload = self._on_resets

    def _stop(self) -> None:
        self._awaited.cancel()
        self._stragglers.stop()
        super()._stop()

    # What the client sends.

    async def _execute(self, command: Command) -> None:
        match command:
            case OpenSubscription():
                await self._open(command)
            case RebindFilters():
                await self._rebind(command.channels)
            case Publish():
                await self._publish(command)
            case _:
                await super()._execute(command)

    def _execute_now(self, command: Command) -> None:
        match command:
            case CloseSubscription():
                self._close_subscription(command)
            case AwaitTransaction():
                if not self._awaited.add(command):
                    reason = f"at most {MOST_AWAITED} until frames may wait, each with its own id"
                    self._refuse(Refuse(reason, "too_many_transactions", command.id))
            case SetPresence() if self._identity.user is not None:
                super()._execute_now(command)
                self._confirm(command)
            case _:
                super()._execute_now(command)

    async def _open(self, command: OpenSubscription) -> None:
        granted: Topic | Refuse
        start: LogStart | None = None
        try:
            names = names_of(command)
            access = await self._context.authority.read_access(self._identity, names)
            # Not all names again: many subscriptions would ask for all of them many times.
            access = joined(self._access, self._subscriptions.names, access, names)
            # Otherwise the next `Reauthorize` would find no difference.
            self._change_access(access)
            granted = await granted_topic(command, access, self._context, self._topics(access))
            if isinstance(granted, Topic):
                start = await start_of(command, self._sources)
        except (AccessUndecided, LogUnavailable) as error:
            granted = Refuse(str(error), "unavailable", command.id)
        if not self._is_open:
            return
        if isinstance(granted, Refuse):
            self._refuse(granted)
        elif not self._subscriptions.has_room(granted):
            reason = "too many subscriptions"
            self._refuse(Refuse(reason, "too_many_subscriptions", command.id))
        elif not self._counted.may_evaluate(self._subscriptions.evaluated({granted})):
            self._refuse(Refuse(TOO_MANY_TOGETHER, "too_many_subscriptions", command.id))
        else:
            self._begin(command, granted, start)

    def _begin(self, command: OpenSubscription, topic: Topic, start: LogStart | None) -> None:
        """Begin a subscription, anew if there is one on this topic."""
        subscription = self._put(command, topic)
        after, lost = parse_cursor(command.after)
        if start is not None:
            after = start.cursor
        if command.after or start is not None or command.wants_snapshot:
            self._stragglers.begin(subscription, after)
        self._change_subscriptions()
        begins_with_rows = command.wants_snapshot and not command.after
        self._confirm_subscription(
            subscription,
            None if begins_with_rows else after or self._cursor(),
            since=None if start is None else start.at,
        )
        if lost is not None:
            self._stragglers.on_gap(subscription, lost)
        elif subscription.straggler is not None:
            self._stragglers.catch_up(subscription, with_rows=begins_with_rows)

    def _put(self, command: OpenSubscription, topic: Topic) -> TopicSubscription:
        """Add a subscription, in place of the one on the same topic if there is one."""
        handle = topic_handle(topic)
        former = self._subscriptions.find(handle.number)
        if former is not None:
            self._stragglers.end(former)
        subscription = TopicSubscription(command, handle)
        self._subscriptions.put(subscription)
        return subscription

    def _end_subscription(self, subscription: TopicSubscription, refusal: Refuse) -> None:
        self._drop(subscription)
        self._change_subscriptions()
        self._send(V1.unsubscribed(subscription.command.id, subscription.handle.number, refusal))
        self._refuse(refusal)

    def _on_joined(self, joined: Sequence[TopicSubscription]) -> None:
        """Go on with subscriptions that have caught up with the connection."""
        self._change_subscriptions()
        for one in joined:
            self._send(V1.live(one.handle, self._cursor()))

    def _close_subscription(self, command: CloseSubscription) -> None:
        subscription = self._subscriptions.find(command.sub)
        if subscription is None:
            reason = f"there is no subscription {command.sub}"
            self._refuse(Refuse(reason, "unknown_subscription", command.id))
            return
        self._drop(subscription)
        self._change_subscriptions()
        self._send(V1.unsubscribed(command.id, command.sub))

    def _drop(self, subscription: TopicSubscription) -> None:
        self._stragglers.end(subscription)
        self._subscriptions.drop(subscription)

    async def _publish(self, command: Publish) -> None:
        published = await publish(command, self._identity, self._sources)
        if isinstance(published, Refuse):
            self._refuse(published)
        else:
            self._send(V1.published(command.id, published))

    def _has_been_sent(self, tick: int) -> bool:
        """Return True if the client was sent everything up to the end of a tick."""
        cursors = self._stragglers.cursors()
        if self._subscriber is not None:
            cursors.append(self._hub.cursor_of(self._subscriber))
        return all(each.place >= (tick, END_OF_TICK) for each in cursors)

    def _answer_until(self, command: AwaitTransaction, outcome: Outcome) -> None:
        refusal = refusal_of(command, outcome)
        if refusal is not None:
            self._refuse(refusal)
        else:
            self._send(V1.until(command.id, command.transaction_id, self._cursor()))

    # What it may read.

    def _change_access(self, access: ReadAccess) -> None:
        """Go on with what the client may read by now: what has changed begins anew, or ends."""
        if has_too_many_combinations(self._topics(access)):
            self.close(CloseCode.ACCESS_LOST, TOO_MANY_COMBINATIONS)
            return
        self._access = access
        granted: dict[TopicSubscription, Topic | Refuse] = {
            one: topic_of(one.command, one.where, access) or Refuse("", "not_allowed")
            for one in self._subscriptions
        }
        self._replace(granted, "what this client may read has changed")

    def rebind_filters(self, channels: frozenset[str]) -> None:
        # One that is being opened may have been bound before the change.
        if self._commands is not None or self._filtered_on(channels):
            self._enqueue(RebindFilters(channels))

    def _filtered_on(self, channels: frozenset[str]) -> list[TopicSubscription]:
        """Return the subscriptions with a filter on one of these channels."""
        topics = [(one, one.handle.topic) for one in self._subscriptions]
        return [one for one, t in topics if t.has_condition and t.channel in channels]

    async def _rebind(self, channels: frozenset[str]) -> None:
        """Go on with what filters mean by now: what has changed begins anew, or ends."""
        filtered = self._filtered_on(channels)
        commands = [one.command for one in filtered]
        try:
            granted = await rebound_topics(commands, self._access, self._context)
        except LogUnavailable as reason:
            self.end(reason)
        else:
            self._replace(dict(zip(filtered, granted, strict=True)), COLUMNS_CHANGED)

    def _replace(self, granted: Mapping[TopicSubscription, Topic | Refuse], reason: str) -> None:
        """Go on with other topics, each with a reset; a subscription that is refused ends."""
        changed = {
            one: other
            for one, other in granted.items()
            if other != one.handle.topic and self._subscriptions.find(one.handle.number) is one
        }
        for one in changed:
            self._drop(one)
        replaced = [
            (one, self._put(self._command_on(other, one.command), other))
            for one, other in changed.items()
            if isinstance(other, Topic)
        ]
        if changed:
            self._change_subscriptions()
        for one, other in changed.items():
            if isinstance(other, Refuse):
                self._send(V1.unsubscribed(one.command.id, one.handle.number, other))
                if other.reason:
                    self._refuse(other)
        for former, subscription in replaced:
            place = self._place_after_reset(subscription)
            self._confirm_subscription(subscription, place, former)
            self._send(V1.subscription_reset(subscription.handle, reason, place))
        # Of those that have become the same, one is left.
        self._reload(
            [one for _, one in replaced if self._subscriptions.find(one.handle.number) is one]
        )

    def _command_on(self, topic: Topic, command: OpenSubscription) -> OpenSubscription:
        """Return with what a subscription goes on; it gets rows if another on the topic does."""
        other = self._subscriptions.find(topic_handle(topic).number)
        if other is None or not other.command.wants_snapshot:
            return command
        return replace(other.command, id=command.id)

    async def _go_on_as(
        self, identity: Identity, access: ReadAccess, command: Reauthenticate
    ) -> None:
        self._become(identity)
        self._change_access(access)
        if self._is_open and command.id is not None:
            self._send(V1.authenticated(command.id, identity.user))

    def _become(self, identity: Identity) -> None:
        super()._become(identity)
        if identity.user is not None:
            self._stragglers.assign_user(identity.user)

    def _readable(self) -> SubscriptionSet:
        return subscription_set(self._subscriptions.live_topics())

    def _change_subscriptions(self) -> None:
        if self._subscriber is not None:
            self._hub.change_subscriptions(self._subscriber, self._readable())
            self._counted.evaluate(self._subscriptions.evaluated())
            channels = frozenset(one.command.channel for one in self._subscriptions)
            self._context.registry.presence.change(self.client, channels)

    # What it is sent.

    def _on_resets(self, events: Sequence[Event]) -> None:
        """Send the rows again to subscriptions that got a reset for one of these events."""
        numbers = {
            handle.number
            for event in events
            for handle, match in self._readable().matches(event)
            if is_reset(event, match)
        }
        self._reload([one for one in self._subscriptions if one.handle.number in numbers])

    def _reload(self, subscriptions: Sequence[TopicSubscription]) -> None:
        """Send the rows again to those of these subscriptions that began with them."""
        reloaded = [one for one in subscriptions if one.command.wants_snapshot]
        for one in reloaded:
            if one.straggler is None:
                self._stragglers.begin(one, self._cursor())
        if reloaded:
            self._change_subscriptions()
        for one in reloaded:
            self._stragglers.catch_up(one, with_rows=True)

    def _refuse(self, refusal: Refuse) -> None:
        self._send(V1.error(refusal))

    def _confirm_subscription(
        self,
        subscription: TopicSubscription,
        cursor: Cursor | None,
        former: TopicSubscription | None = None,
        since: datetime | None = None,
    ) -> None:
        self._send(
            V1.subscribed(
                subscription.command,
                subscription.handle,
                cursor,
                self._context.columns_of(subscription.command.channel),
                None if former is None else former.handle,
                since,
            )
        )

    def _reset(self, reason: str) -> None:
        """Send a reset for each subscription that is where the connection is, and go on."""
        live = [one for one in self._subscriptions if one.straggler is None]
        for one in live:
            place = self._place_after_reset(one)
            self._send(V1.subscription_reset(one.handle, reason, place))
        self._reload(live)
        self._continue(with_rows=False)

    def _place_after_reset(self, subscription: TopicSubscription) -> Cursor | None:
        """Return from where a client may resume a subscription; None: it gets the rows first."""
        return None if subscription.command.wants_snapshot else self._cursor()
