"""A client of brain.v1: any number of subscriptions over one connection, each with a number."""

from __future__ import annotations

from functools import partial

from brain.auth.identity import Identity
from brain.close_codes import CloseCode
from brain.database.transactions import Outcome
from brain.errors import (
    AccessUndecided,
    ConnectionEnded,
    CursorLost,
    LogUnavailable,
    MessageRefused,
    MessageTooLarge,
    SlowConsumer,
)
from brain.message.commands import (
    AwaitTransaction,
    CloseSubscription,
    Command,
    OpenSubscription,
    Publish,
    Reauthenticate,
    Refuse,
    SetPresence,
)
from brain.message.cursor import END_OF_TICK, Cursor
from brain.message.encodings import encoding_of
from brain.message.matching import (
    TOO_MANY_COMBINATIONS,
    ReadAccess,
    Topic,
    has_too_many_combinations,
)
from brain.message.subscription_set import SubscriptionSet, subscription_set
from brain.message.topic_handle import topic_handle
from brain.message.v1_format import CATCHING_UP, V1
from brain.session.admission import Admitted
from brain.session.awaited import MOST_AWAITED, AwaitedByClient
from brain.session.catch_up import CatchUp, Sources
from brain.session.channel_session import ChannelSession, SessionRequest, parse_cursor
from brain.session.session import SessionContext
from brain.session.topic_subscriptions import (
    Straggler,
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

    def pause_writing(self) -> None:
        super().pause_writing()
        for straggler in self._stragglers():
            self._hub.pause_writing(straggler.subscriber)

    def resume_writing(self) -> None:
        super().resume_writing()
        for straggler in self._stragglers():
            self._hub.resume_writing(straggler.subscriber)
            straggler.catch_up.resume_writing()

    def _start(self) -> None:
        super()._start()
        if self._subscriber is not None:
            self._subscriber.on_live = self._join_stragglers

    def _stop(self) -> None:
        self._awaited.cancel()
        for subscription in self._subscriptions:
            self._end_straggler(subscription)
        super()._stop()

    def _stragglers(self) -> list[Straggler]:
        return [one.straggler for one in self._subscriptions if one.straggler is not None]

    # What the client sends.

    async def _execute(self, command: Command) -> None:
        match command:
            case OpenSubscription():
                try:
                    await self._open(command)
                except AccessUndecided as error:
                    self._refuse(Refuse(str(error), "unavailable", command.id))
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
        names = (*self._subscriptions.names, *names_of(command))
        access = await self._context.authority.read_access(self._identity, names)
        # Otherwise the next `Reauthorize` would find no difference.
        self._change_access(access)
        topic = topic_of(command, access)
        if topic is None:
            reason = f"not allowed to read {command.channel}"
            self._refuse(Refuse(reason, "not_allowed", command.id))
        elif (problem := await self._context.refuse_filters((topic,))) is not None:
            self._refuse(Refuse(problem, "invalid_filter", command.id))
        elif not self._subscriptions.has_room(topic) or has_too_many_combinations(
            self._topics(access) | {topic}
        ):
            reason = "too many subscriptions"
            self._refuse(Refuse(reason, "too_many_subscriptions", command.id))
        elif self._is_open:
            self._begin(command, topic)

    def _begin(self, command: OpenSubscription, topic: Topic) -> None:
        """Begin a subscription, anew if there is one on this topic."""
        handle = topic_handle(topic)
        former = self._subscriptions.find(handle.number)
        if former is not None:
            self._end_straggler(former)
        subscription = TopicSubscription(command, handle)
        self._subscriptions.put(subscription)
        after, lost = parse_cursor(command.after)
        if command.after or command.wants_snapshot:
            subscription.straggler = self._straggler(subscription, after)
        self._change_subscriptions()
        self._confirm_subscription(subscription, after or self._cursor())
        if lost is not None:
            self._on_straggler_gap(subscription, lost)
        elif subscription.straggler is not None:
            self._catch_up_with(subscription, with_rows=not command.after)

    def _straggler(self, subscription: TopicSubscription, after: Cursor | None) -> Straggler:
        assert self._subscriber is not None
        on_gap = partial(self._on_straggler_gap, subscription)
        subscriber = self._hub.subscribe(
            encoding_of(CATCHING_UP, self._transport.framing, self._context.problems),
            subscription_set(frozenset({subscription.handle.topic})),
            self._transport,
            on_gap,
            after=after,
            user=self._identity.user,
            on_live=self._join_stragglers,
        )
        subscriber.is_paused = self._subscriber.is_paused
        catch_up = CatchUp(
            subscriber,
            self._sources,
            self._transport,
            on_gap=on_gap,
            close=partial(self._straggler_failed, subscription),
        )
        return Straggler(subscriber, catch_up)

    def _catch_up_with(self, subscription: TopicSubscription, *, with_rows: bool) -> None:
        assert subscription.straggler is not None
        if with_rows:
            subscription.straggler.catch_up.send_rows()
        else:
            subscription.straggler.catch_up.resume()

    def _straggler_failed(
        self, subscription: TopicSubscription, code: CloseCode, reason: str
    ) -> None:
        """End a subscription whose past or rows cannot be read; close a client that fails."""
        if code not in (CloseCode.LOG_UNAVAILABLE, CloseCode.SNAPSHOT_TOO_LARGE):
            self.close(code, reason)
            return
        command = subscription.command
        refusal = Refuse(
            reason,
            "snapshot_unavailable" if command.wants_snapshot else "unavailable",
            command.id,
        )
        self._drop(subscription)
        self._change_subscriptions()
        self._send(V1.unsubscribed(command.id, subscription.handle.number, refusal))
        self._refuse(refusal)

    def _end_straggler(self, subscription: TopicSubscription) -> None:
        straggler, subscription.straggler = subscription.straggler, None
        if straggler is not None:
            straggler.catch_up.cancel()
            self._hub.unsubscribe(straggler.subscriber)

    def _join_stragglers(self) -> None:
        """Go on with subscriptions that have caught up where the connection is."""
        if self._subscriber is None:
            return
        stragglers = {one: one.straggler.subscriber for one in self._subscriptions if one.straggler}
        caught_up = [one for one, each in stragglers.items() if self._hub.keeps_up(each)]
        if not self._hub.keeps_up(self._subscriber):
            # They wait: of the subscribers on one transport, no other may be in a cohort, because
            # all of them pause as soon as one of them is written to and pauses.
            for one in caught_up:
                self._hub.pause_writing(stragglers[one])
            return
        for one in caught_up:
            self._end_straggler(one)
        if caught_up:
            self._change_subscriptions()
        for one in caught_up:
            self._send(V1.live(one.handle, self._cursor()))
        for each in [each for each in stragglers.values() if each.is_paused]:
            self._hub.resume_writing(each)
        self._awaited.answer()

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
        self._end_straggler(subscription)
        self._subscriptions.drop(subscription)

    async def _publish(self, command: Publish) -> None:
        if not self._identity.may_publish(command.channel):
            reason = f"not allowed to publish on {command.channel}"
            self._refuse(Refuse(reason, "not_allowed", command.id))
            return
        try:
            transaction_id = await self._sources.publish(
                command.channel, command.type, command.data, command.recipient
            )
        except MessageTooLarge as error:
            self._refuse(Refuse(str(error), "message_too_large", command.id))
        except MessageRefused as error:
            self._refuse(Refuse(str(error), "invalid_message", command.id))
        except LogUnavailable as error:
            self._refuse(Refuse(str(error), "unavailable", command.id))
        else:
            self._send(V1.published(command.id, transaction_id))

    def _has_been_sent(self, tick: int) -> bool:
        """Return True if the client was sent everything up to the end of a tick."""
        subscribers = [one.subscriber for one in self._stragglers()]
        if self._subscriber is not None:
            subscribers.append(self._subscriber)
        cursors = [self._hub.cursor_of(one) for one in subscribers]
        return all(each.place >= (tick, END_OF_TICK) for each in cursors)

    def _answer_until(self, command: AwaitTransaction, outcome: Outcome) -> None:
        match outcome.state:
            case "committed":
                self._send(V1.until(command.id, command.transaction_id, self._cursor()))
            case "rolled back":
                reason = f"the transaction {command.transaction_id} was rolled back"
                self._refuse(Refuse(reason, "rolled_back", command.id))
            case "unknown":
                reason = f"there is no transaction {command.transaction_id} so far"
                self._refuse(Refuse(reason, "unknown_transaction", command.id))

    # What it may read.

    def _change_access(self, access: ReadAccess) -> None:
        """Go on with what the client may read by now: what has changed begins anew, or ends."""
        if has_too_many_combinations(self._topics(access)):
            self.close(CloseCode.ACCESS_LOST, TOO_MANY_COMBINATIONS)
            return
        self._access = access
        changed = {one: topic_of(one.command, access) for one in self._subscriptions}
        changed = {one: topic for one, topic in changed.items() if topic != one.handle.topic}
        for one in changed:
            self._drop(one)
        replaced = [
            (one, TopicSubscription(one.command, topic_handle(topic)))
            for one, topic in changed.items()
            if topic is not None
        ]
        for _, subscription in replaced:
            self._subscriptions.put(subscription)
        if changed:
            self._change_subscriptions()
        for one, topic in changed.items():
            if topic is None:
                refusal = Refuse("", "not_allowed")
                self._send(V1.unsubscribed(one.command.id, one.handle.number, refusal))
        for former, subscription in replaced:
            self._confirm_subscription(subscription, self._cursor(), former)
            reason = "what this client may read has changed"
            self._send(V1.subscription_reset(subscription.handle, reason, self._cursor()))

    async def _go_on_as(
        self, identity: Identity, access: ReadAccess, command: Reauthenticate
    ) -> None:
        self._become(identity)
        self._change_access(access)
        if self._is_open and command.id is not None:
            self._send(V1.authenticated(command.id, identity.user))

    def _become(self, identity: Identity) -> None:
        super()._become(identity)
        for straggler in self._stragglers():
            if straggler.subscriber.user is None and identity.user is not None:
                self._hub.assign_user(straggler.subscriber, identity.user)

    def _readable(self) -> SubscriptionSet:
        return subscription_set(self._subscriptions.live_topics())

    def _change_subscriptions(self) -> None:
        if self._subscriber is not None:
            self._hub.change_subscriptions(self._subscriber, self._readable())
            channels = frozenset(one.command.channel for one in self._subscriptions)
            self._context.registry.presence.change(self.client, channels)

    # What it is sent.

    def _refuse(self, refusal: Refuse) -> None:
        self._send(V1.error(refusal))

    def _confirm_subscription(
        self,
        subscription: TopicSubscription,
        cursor: Cursor,
        former: TopicSubscription | None = None,
    ) -> None:
        self._send(
            V1.subscribed(
                subscription.command,
                subscription.handle,
                cursor,
                self._context.columns_of(subscription.command.channel),
                None if former is None else former.handle,
            )
        )

    def _on_gap(self, reason: CursorLost | ConnectionEnded) -> None:
        """Send a reset for each subscription that is where the connection is; go on from here."""
        if self._subscriber is None:
            return
        if isinstance(reason, SlowConsumer):
            self.end(reason)
            return
        self._hub.restart(self._subscriber)
        for one in self._subscriptions:
            if one.straggler is None:
                self._send(V1.subscription_reset(one.handle, str(reason), self._subscriber.cursor))
        self._continue(with_rows=False)

    def _on_straggler_gap(
        self, subscription: TopicSubscription, reason: CursorLost | ConnectionEnded
    ) -> None:
        straggler = subscription.straggler
        if straggler is None:
            return
        if isinstance(reason, SlowConsumer):
            self.end(reason)
            return
        self._hub.restart(straggler.subscriber)
        cursor = straggler.subscriber.cursor
        self._send(V1.subscription_reset(subscription.handle, str(reason), cursor))
        self._catch_up_with(subscription, with_rows=subscription.command.wants_snapshot)
