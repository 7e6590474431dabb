"""A client of channels: greeted, sent what it missed and what happens, and answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from brain.auth.identity import Identity
from brain.close_codes import CloseCode
from brain.errors import (
    AccessUndecided,
    ConnectionEnded,
    CursorLost,
    HistoryLost,
    SlowConsumer,
    TokenRefused,
    TooManyConnections,
)
from brain.hub.subscriber import Subscriber
from brain.message.commands import (
    Command,
    Reauthenticate,
    Reauthorize,
    Refuse,
    Reply,
    RequestId,
    SetPresence,
    Subscribe,
    Unsubscribe,
)
from brain.message.cursor import Cursor, LogStart
from brain.message.encodings import encoding_of
from brain.message.event import Event
from brain.message.matching import (
    TOO_MANY_COMBINATIONS,
    Filter,
    ReadAccess,
    Topic,
    has_too_many_combinations,
    requested_topics,
)
from brain.message.subscription_set import SubscriptionSet, subscription_set
from brain.message.wire_format import Welcome, WireFormat
from brain.session.admission import Admitted
from brain.session.catch_up import CatchUp
from brain.session.command_queue import CommandQueue
from brain.session.session import Session, SessionContext
from brain.session.sources import Sources
from brain.session.subscriptions import Subscriptions


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """What a client asks for when it connects."""

    wire_format: WireFormat
    names: Sequence[str] = ()
    """Of channels, or of rows of channels, as far as it may read them."""
    where: Filter = ()
    """The values that a row must have."""
    after: str | None = None
    """The text of a cursor: it gets everything since then first."""
    start: LogStart | None = None
    """Where it begins without one, unless that is the present."""
    wants_snapshot: bool = False
    """It gets the rows of the tables when it comes without a cursor, and after a reset."""
    conflates: bool = False
    """While it lags, superseded messages may be skipped."""
    implied: frozenset[Topic] = frozenset()
    """What all clients of this kind get, whatever channels they may read, but not anonymous ones
    where a token is needed."""
    is_listed: bool = False
    """Others may see the id of this connection."""


class ChannelSession(Session):
    """One client of channels."""

    __slots__ = (
        "_access",
        "_catch_up",
        "_commands",
        "_hub",
        "_request",
        "_sources",
        "_subscriber",
        "_subscriptions",
        "_wire_format",
    )

    _queued: tuple[type[Command], ...] = (Subscribe, Reauthenticate)
    """Commands that have to wait for something."""

    def __init__(
        self,
        admitted: Admitted,
        context: SessionContext,
        sources: Sources,
        request: SessionRequest,
        access: ReadAccess,
        changes: int | None = None,
    ) -> None:
        super().__init__(admitted, context, is_listed=request.is_listed, changes=changes)
        self._sources = sources
        self._hub = sources.hub
        self._request = request
        self._wire_format = request.wire_format
        self._subscriptions = Subscriptions(
            request.implied, request.names, request.where, context.limits.max_subscriptions
        )
        self._access = access
        self._subscriber: Subscriber | None = None
        self._catch_up: CatchUp | None = None
        self._commands: CommandQueue | None = None

    @property
    def format_name(self) -> str:
        return self._wire_format.name

    @property
    def client_timeout_seconds(self) -> float | None:
        return self._wire_format.client_timeout_seconds

    @property
    def going_away_code(self) -> CloseCode:
        return self._wire_format.going_away_code

    def reauthorize(self) -> None:
        self._enqueue(Reauthorize())

    def pause_writing(self) -> None:
        if self._subscriber is not None:
            self._hub.pause_writing(self._subscriber)

    def resume_writing(self) -> None:
        if self._subscriber is not None:
            self._hub.resume_writing(self._subscriber)
        if self._catch_up is not None:
            self._catch_up.resume_writing()

    def _start(self) -> None:
        """Subscribe, then greet: the client gets everything that happens after the greeting."""
        cursor, lost = parse_cursor(self._request.after)
        if self._request.start is not None:
            cursor = self._request.start.cursor
        subscriptions = self._readable()
        self._subscriber = self._hub.subscribe(
            encoding_of(self._wire_format, self._transport.framing, self._context.problems),
            subscriptions,
            self._transport,
            self._on_gap,
            after=cursor,
            user=self._identity.user,
            conflates=self._request.conflates,
            reload=self._send_rows_again if self._request.wants_snapshot else None,
        )
        self.client.channels = subscriptions.channels
        self._context.registry.add(self)
        self._greet(self._subscriber)
        self._catch_up = CatchUp(
            self._subscriber,
            self._sources,
            self._transport,
            on_gap=self._on_gap,
            close=self.close,
            has_cursor=cursor is not None,
        )
        if lost is not None:
            self._on_gap(lost)
        else:
            self._continue(with_rows=self._request.wants_snapshot and not self._request.after)

    def _stop(self) -> None:
        if self._subscriber is not None:
            self._hub.unsubscribe(self._subscriber)
            self._subscriber = None
        if self._catch_up is not None:
            self._catch_up.cancel()
            self._catch_up = None
        if self._commands is not None:
            self._commands.cancel()

    def _greet(self, subscriber: Subscriber) -> None:
        welcome = Welcome(
            datetime.now(UTC), subscriber.cursor, self.client.connection_id, self._identity.user
        )
        for text in self._wire_format.greet(welcome):
            self._send(text)

    # What the client sends.

    def _text_received(self, text: str) -> None:
        for command in self._wire_format.receive(text, datetime.now(UTC), self._cursor):
            if self._commands is not None or isinstance(command, self._queued):
                self._enqueue(command)
            elif isinstance(command, Reply):
                self._send(command.text)
            else:
                self._execute_now(command)

    def _warn_of_rate(self) -> None:
        text = "Too many messages: slow down, or the connection will be closed"
        self._refuse(Refuse(text, "rate_limit"))

    def _cursor(self) -> Cursor:
        assert self._subscriber is not None
        return self._hub.cursor_of(self._subscriber)

    def _enqueue(self, command: Command) -> None:
        """Execute a command after those that are still waiting for something."""
        if self._commands is None:
            self._commands = CommandQueue(
                self._execute, on_empty=self._commands_done, on_failure=self._commands_failed
            )
        if not self._commands.add(command):
            self.close(CloseCode.RATE_LIMITED, "too many commands are waiting")

    def _commands_done(self) -> None:
        self._commands = None

    def _commands_failed(self, error: Exception) -> None:
        self._commands = None
        text = f"a command of a client failed: {type(error).__name__}: {error}"
        self._context.problems.report("commands", text, unexpected=error)
        self.close(CloseCode.INTERNAL_ERROR, "internal error")

    async def _execute(self, command: Command) -> None:
        try:
            match command:
                case Reauthorize():
                    access = await self._read_access(self._subscriptions.names)
                    if access is not None:
                        self._change_access(access)
                case Subscribe():
                    await self._subscribe(command)
                case Reauthenticate():
                    await self._reauthenticate(command)
                case _:
                    self._execute_now(command)
        except AccessUndecided as error:
            self._refuse(Refuse(str(error), "unavailable", id_of(command)))

    def _execute_now(self, command: Command) -> None:
        match command:
            case Reply():
                self._send(command.text)
            case Unsubscribe():
                self._subscriptions.remove(command.name, command.where)
                self._change_subscriptions()
                self._confirm(command)
            case SetPresence():
                if self._identity.user is None:
                    reason = "Only users have a presence: connect with a token"
                    self._refuse(Refuse(reason, "user_needed", command.id))
                else:
                    presence = self._context.registry.presence
                    presence.set_status(self._identity.user, command.status)
            case Refuse():
                self._refuse(command)

    def _change_access(self, access: ReadAccess) -> None:
        """Go on with what the client may read by now: it loads its state again."""
        former, topics = self._topics(self._access), self._topics(access)
        if has_too_many_combinations(topics):
            self.close(CloseCode.ACCESS_LOST, TOO_MANY_COMBINATIONS)
            return
        self._access = access
        if topics != former:
            self._change_subscriptions()
            self._on_gap(HistoryLost("what this client may read has changed"))

    async def _subscribe(self, command: Subscribe) -> None:
        names = (*self._subscriptions.names, command.name)
        access = await self._context.authority.read_access(self._identity, names)
        # Otherwise the next `Reauthorize` would find no difference.
        self._change_access(access)
        topics = requested_topics(command.name, command.where, access)
        if not self._is_open:
            return
        if not topics:
            self._refuse(Refuse(f"Not allowed to read {command.name}", "not_allowed"))
        elif (reason := await self._context.refuse_filters(topics)) is not None:
            self._refuse(Refuse(reason, "invalid_filter"))
        elif has_too_many_combinations(
            self._topics(access) | topics
        ) or not self._subscriptions.add(command.name, command.where):
            self._refuse(Refuse("Too many subscriptions", "too_many_subscriptions"))
        else:
            if command.conflates and self._subscriber is not None:
                self._subscriber.conflates = True
            self._change_subscriptions()
            self._confirm(command)

    async def _reauthenticate(self, command: Reauthenticate) -> None:
        """Go on with another token; a client with a user keeps that user."""
        authority = self._context.authority
        try:
            identity = await authority.identify(command.token)
        except TokenRefused:
            self._refuse(Refuse("The token is not valid", "invalid_token", command.id))
            return
        if self._identity.user not in (None, identity.user):
            self._refuse(Refuse("The token is of another user", "wrong_user", command.id))
            return
        names = self._subscriptions.names
        access = await authority.read_access(identity, names)
        if not self._topics(self._access) <= self._topics(access, identity):
            # Because of the token, or because what the former one allows has changed.
            self._change_access(await authority.read_access(self._identity, names))
        if not self._is_open:
            return
        if authority.is_revoked(identity):
            self._refuse(Refuse("The token is not valid", "invalid_token", command.id))
        elif has_too_many_combinations(self._topics(access, identity)):
            reason = "Too many subscriptions"
            self._refuse(Refuse(reason, "too_many_subscriptions", command.id))
        elif self._is_counted_as(identity.user, command):
            await self._go_on_as(identity, access, command)

    def _is_counted_as(self, user: str | None, command: Reauthenticate) -> bool:
        """Count the connection as one of `user`; return False, and refuse, if it has too many."""
        if self._identity.user is None and user is not None:
            try:
                self._counted.assign_user(user)
            except TooManyConnections as error:
                self._refuse(Refuse(str(error), "too_many_connections", command.id))
                return False
        return True

    async def _go_on_as(
        self, identity: Identity, access: ReadAccess, command: Reauthenticate
    ) -> None:
        before = self._readable()
        self._access = access
        self._become(identity)
        self._change_subscriptions()
        self._confirm(command)
        after = self._readable()
        if any(before.rows.get(c) != after.rows.get(c) for c in before.channels & after.channels):
            self._on_gap(HistoryLost("which rows this client may see has changed"))
        if (reason := await self._context.refuse_filters(after.topics)) is not None:
            self._refuse(Refuse(reason, "invalid_filter", command.id))

    def _become(self, identity: Identity) -> None:
        was_anonymous = self._identity.user is None
        super()._become(identity)
        if was_anonymous and identity.user is not None and self._subscriber is not None:
            self._hub.assign_user(self._subscriber, identity.user)
            self._context.registry.remove(self)
            self.client.user = identity.user
            self._context.registry.add(self)

    def _topics(self, access: ReadAccess, identity: Identity | None = None) -> frozenset[Topic]:
        """Return what the client, or another identity, is subscribed to with this access."""
        who = identity or self._identity
        is_known = who.is_unlimited or who.user is not None
        return self._subscriptions.topics(access, with_implied=is_known)

    def _readable(self) -> SubscriptionSet:
        return subscription_set(self._topics(self._access))

    def _change_subscriptions(self) -> None:
        if self._subscriber is not None:
            subscriptions = self._readable()
            self._hub.change_subscriptions(self._subscriber, subscriptions)
            self._context.registry.presence.change(self.client, subscriptions.channels)

    def _confirm(self, command: Command) -> None:
        self._answer(self._wire_format.confirm(command, datetime.now(UTC)))

    def _refuse(self, refusal: Refuse) -> None:
        self._answer(self._wire_format.refuse(refusal.reason, datetime.now(UTC)))

    def _answer(self, text: str | None) -> None:
        if text is not None:
            self._send(self._wire_format.add_cursor(text, self._cursor))

    # What the client is sent.

    def _send(self, text: str, cursor: Cursor | None = None) -> None:
        """Send a text; the client may resume from `cursor` once it has read it."""
        self._transport.write(self._transport.framing.frame(text, cursor))

    def _on_gap(self, reason: CursorLost | ConnectionEnded) -> None:
        """Go on from here, whatever lies before; close a slow consumer."""
        if self._subscriber is None:
            return
        if isinstance(reason, SlowConsumer):
            self.end(reason)
            return
        self._hub.restart(self._subscriber)
        self._reset(str(reason))

    def _reset(self, reason: str) -> None:
        """Send a reset, and go on; close the connection if its format has none."""
        text = self._wire_format.reset(reason, datetime.now(UTC), self._cursor())
        if text is None:
            self.end(HistoryLost(reason))
            return
        self._send(text)
        self._continue(with_rows=self._request.wants_snapshot)

    def _send_rows_again(self, _: Sequence[Event]) -> None:
        """Send the rows again, after a reset that was an event of a channel."""
        if self._subscriber is not None:
            self._hub.restart(self._subscriber)
            self._continue(with_rows=True)

    def _continue(self, *, with_rows: bool) -> None:
        if self._catch_up is not None:
            if with_rows:
                self._catch_up.send_rows()
            else:
                self._catch_up.resume()


def id_of(command: Command) -> RequestId:
    """Return the id of a client frame, where it has one."""
    return getattr(command, "id", None)


def parse_cursor(after: str | None) -> tuple[Cursor | None, CursorLost | None]:
    """Return the cursor that a client came with, or why it is invalid."""
    try:
        return (Cursor.parse(after) if after else None), None
    except CursorLost as lost:
        return None, lost
