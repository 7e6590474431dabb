"""Everything said over one WebSocket."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from brain.auth import Identity
from brain.database.attendance import Visit
from brain.errors import (
    ConnectionEnded,
    CursorLost,
    HistoryLost,
    NotReady,
    TokenRefused,
    TooFarBehind,
)
from brain.hub.subscriber import Subscriber
from brain.message.acts import (
    Act,
    Refresh,
    Reject,
    Say,
    StatePresence,
    Subscribe,
    Unsubscribe,
)
from brain.message.cursor import Cursor
from brain.message.frames import framed
from brain.message.json_depth import is_deeper
from brain.message.topic import Topic, Where, topics_of
from brain.message.wire_format import Welcome, WireFormat
from brain.websocket.acting import Acting
from brain.websocket.courtesy import Courtesy
from brain.websocket.entrance import Entrance, Guest
from brain.websocket.subscriptions import Subscriptions
from brain.websocket.telling import Sources, Telling

logger = logging.getLogger(__name__)

NO_TEXT, INTERNAL_ERROR, TOO_FAST, EXPIRED, TOO_DEEP = 1003, 1011, 4029, 4401, 4501


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client wants to hear."""

    wire_format: WireFormat
    names: Sequence[str]
    """Of channels, or of rows of channels, as far as they are allowed."""
    where: Where = ()
    """What a row must have in it to be told of."""
    after: str | None = None
    """The text of a cursor: it hears first what has happened since."""
    wants_snapshot: bool = False
    """It is told what the tables hold wherever what happened would not say: when it comes without a
    cursor, and after a reset."""
    wants_latest: bool = False
    """It may be spared what has been overtaken, while it is behind."""
    implied: frozenset[Topic] = frozenset()
    """What all clients of this kind hear, whatever they are allowed."""
    is_listed: bool = False
    """Whether others may know of this connection by its id."""


class Conversation:
    """
    One client: greeted, told what it missed and what happens, and answered.

    It has a task only as long as something has to be waited for: the log, the tables, or whether
    something is allowed. Otherwise the hub writes to its outlet, and the outlet calls it when the
    client says something.
    """

    def __init__(
        self,
        guest: Guest,
        sources: Sources,
        entrance: Entrance,
        wish: Wish,
        may_hear: Callable[[str], bool],
    ) -> None:
        self._outlet = guest.outlet
        self._when_over = guest.leave
        self._identity = guest.identity
        self._sources = sources
        self._hub = sources.hub
        self._entrance = entrance
        self._visitors = entrance.visitors
        self._wish = wish
        self._wire_format = wish.wire_format
        self._subscriptions = Subscriptions(wish.implied, entrance.most_subscriptions)
        for name in wish.names:
            self._subscriptions.add(name, wish.where)
        self._may_hear = may_hear
        self._subscriber: Subscriber | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._telling: Telling | None = None
        self._acting: Acting | None = None
        self._courtesy: Courtesy | None = None
        self.visit = Visit(uuid4(), guest.identity.user, wish.is_listed, frozenset())
        self.heard_at = time.monotonic()

    @property
    def silence_seconds(self) -> float | None:
        return self._wire_format.silence_seconds

    @property
    def going_away_code(self) -> int:
        return self._wire_format.going_away_code

    def begin(self) -> None:
        """Greet the client, and tell it what happens from then on; it is subscribed before."""
        self._expire_later()
        cursor, lost = parsed(self._wish.after)
        interest = self._subscriptions.interest(self._may_hear)
        try:
            self._subscriber = self._hub.subscribe(
                self._wire_format,
                interest,
                self._outlet.send_now,
                self._outlet.write,
                self._lose,
                after=cursor,
                user=self._identity.user,
                wants_latest=self._wish.wants_latest,
            )
        except NotReady as reason:
            self._end(reason)
            return
        self.visit.channels = interest.channels
        self._visitors.arrive(self)
        self._greet(self._subscriber)
        self._telling = Telling(
            self._subscriber, self._sources, self._outlet, lose=self._lose, close=self.close
        )
        if lost is not None:
            self._lose(lost)
        else:
            self._tell_on(wants_rows=self._wish.wants_snapshot and not self._wish.after)

    def hear(self, message: str | bytes) -> None:
        """Do what comes of what the client says."""
        if self._subscriber is None:
            return
        self.heard_at = time.monotonic()
        if isinstance(message, bytes):
            self.close(NO_TEXT, "text messages only")
        elif is_deeper(message, self._entrance.most_depth):
            self.close(TOO_DEEP, "nested too deeply")
        elif self._is_bearable(message):
            cursor = self._hub.reached(self._subscriber)
            for act in self._wire_format.hear(message, now(), cursor):
                self._do(act)

    def pause(self) -> None:
        """Write no more until the client has read what was written."""
        if self._subscriber is not None:
            self._hub.pause(self._subscriber)

    def drain(self) -> None:
        """Go on: it has."""
        if self._subscriber is not None:
            self._hub.drain(self._subscriber)
        if self._telling is not None:
            self._telling.drain()

    def leave(self) -> None:
        """Forget the client; may be called again."""
        if self._subscriber is not None:
            self._hub.unsubscribe(self._subscriber)
            self._subscriber = None
        if self._telling is not None:
            self._telling.cancel()
        if self._acting is not None:
            self._acting.cancel()
        if self._expiry is not None:
            self._expiry.cancel()
        self._visitors.leave(self)
        self._when_over()

    def close(self, code: int, reason: str) -> None:
        """Say goodbye."""
        self.leave()
        self._outlet.close(code, reason)

    def _greet(self, subscriber: Subscriber) -> None:
        welcome = Welcome(now(), subscriber.cursor, self.visit.connection_id, self._identity.user)
        for text in self._wire_format.greet(welcome):
            self._say(text)

    def _expire_later(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        seconds = self._entrance.seconds_left(self._identity)
        if seconds < math.inf:
            self._expiry = asyncio.get_running_loop().call_later(
                max(0.0, seconds), self.close, EXPIRED, "the token has expired"
            )

    def _is_bearable(self, message: str) -> bool:
        """Whether the client says no more than it may; it is warned before it is sent away."""
        if self._courtesy is None:
            entrance = self._entrance
            self._courtesy = Courtesy(entrance.messages_per_second, entrance.bytes_per_second)
        if not self._courtesy.allows(message, self.heard_at):
            self.close(TOO_FAST, "too much was said")
            return False
        if self._courtesy.is_warning_due:
            self._reject("Too many messages: slow down, or the connection will be closed")
        return True

    # What comes of what it says.

    def _do(self, act: Act) -> None:
        """Do it now, or after what is still being waited for."""
        if self._acting is None and not isinstance(act, Subscribe | Refresh):
            self._do_now(act)
            return
        if self._acting is None:
            self._acting = Acting(
                self._do_in_turn, when_done=self._acted, when_failed=self._cannot_act
            )
        if not self._acting.add(act):
            self.close(TOO_FAST, "too much was asked at once")

    def _acted(self) -> None:
        self._acting = None

    def _cannot_act(self) -> None:
        self._acting = None
        self.close(INTERNAL_ERROR, "internal error")

    async def _do_in_turn(self, act: Act) -> None:
        match act:
            case Subscribe():
                await self._subscribe(act)
            case Refresh():
                await self._refresh(act)
            case _:
                self._do_now(act)

    def _do_now(self, act: Act) -> None:
        match act:
            case Say():
                self._say(act.text)
            case Unsubscribe():
                self._subscriptions.remove(act.name, act.where)
                self._change_interest()
                self._confirm(act)
            case StatePresence():
                if self._identity.user is None:
                    self._reject("Only users have a presence: connect with a token")
                else:
                    self._visitors.attendance.state(self._identity.user, act.status)
            case Reject():
                self._reject(act.why)

    async def _subscribe(self, act: Subscribe) -> None:
        names = (*self._subscriptions.names, act.name)
        may_hear = await self._entrance.authority.allowed(self._identity, names)
        if not topics_of(act.name, act.where, may_hear):
            self._reject(f"Not allowed to hear {act.name}")
        elif not self._subscriptions.add(act.name, act.where):
            self._reject("Too many subscriptions")
        else:
            self._may_hear = may_hear
            if act.wants_latest and self._subscriber is not None:
                self._subscriber.wants_latest = True
            self._change_interest()
            self._confirm(act)

    async def _refresh(self, act: Refresh) -> None:
        """Go on as the user of another token; who was a user stays the same one."""
        try:
            identity = await self._entrance.authority.identify(act.token)
        except TokenRefused:
            self._reject("The token is not valid")
            return
        if self._identity.user not in (None, identity.user):
            self._reject("The token is of another user")
            return
        self._may_hear = await self._entrance.authority.allowed(identity, self._subscriptions.names)
        self._become(identity)
        self._change_interest()
        self._confirm(act)

    def _become(self, identity: Identity) -> None:
        was_stranger = self._identity.user is None
        self._identity = identity
        self._expire_later()
        if was_stranger and identity.user is not None and self._subscriber is not None:
            self._hub.belong(self._subscriber, identity.user)
            self._visitors.leave(self)
            self.visit.user = identity.user
            self._visitors.arrive(self)

    def _change_interest(self) -> None:
        if self._subscriber is not None:
            interest = self._subscriptions.interest(self._may_hear)
            self._hub.change(self._subscriber, interest)
            self._visitors.attendance.change(self.visit, interest.channels)

    def _confirm(self, act: Act) -> None:
        text = self._wire_format.confirm(act, now())
        if text is not None:
            self._say(text)

    def _reject(self, why: str) -> None:
        text = self._wire_format.reject(why, now())
        if text is not None:
            self._say(text)

    # What it is told.

    def _say(self, text: str) -> None:
        self._outlet.write(framed(text))

    def _end(self, reason: ConnectionEnded) -> None:
        self.close(reason.close_code, str(reason))

    def _lose(self, reason: CursorLost | ConnectionEnded) -> None:
        """Say that something is missing, and go on from here; end the connection otherwise."""
        subscriber = self._subscriber
        if subscriber is None:
            return
        if isinstance(reason, TooFarBehind):
            self._end(reason)
            return
        self._hub.start_over(subscriber)
        text = self._wire_format.reset(str(reason), now(), subscriber.cursor)
        if text is None:
            self._end(HistoryLost(str(reason)))
            return
        self._say(text)
        self._tell_on(wants_rows=self._wish.wants_snapshot)

    def _tell_on(self, *, wants_rows: bool) -> None:
        if self._telling is not None:
            if wants_rows:
                self._telling.tell_rows()
            else:
                self._telling.go_on()


def parsed(after: str | None) -> tuple[Cursor | None, CursorLost | None]:
    """Return the cursor that a client came with, or why it is none."""
    try:
        return (Cursor.parse(after) if after else None), None
    except CursorLost as lost:
        return None, lost


def now() -> datetime:
    return datetime.now(UTC)
