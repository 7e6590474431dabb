"""
The wire format brain.v1: subscriptions with numbers, and rows with operation, key and transaction.

Source: docs/protocol.md, "brain.v1".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime

import orjson

import brain
from brain.message.commands import Command, OpenSubscription, Refuse, Reply, SetPresence
from brain.message.condition_matching import undecided_columns
from brain.message.cursor import Cursor
from brain.message.error_codes import ADVICE
from brain.message.event import Event, Operation
from brain.message.json_text import dumps
from brain.message.matching import Match
from brain.message.number_strings import with_number_strings
from brain.message.subscription_set import SubscriptionSet
from brain.message.timestamps import iso_milliseconds
from brain.message.topic_handle import TopicHandle
from brain.message.v1_client_frames import AnyClientFrame, PingFrame, PongFrame
from brain.message.v1_commands import command_in, parse_frame
from brain.message.v1_frames import (
    AnyServerFrame,
    Authenticated,
    Closed,
    Error,
    Hello,
    Ping,
    Pong,
    PresenceSet,
    Published,
    SubscriptionReset,
    Unsubscribed,
    Until,
)
from brain.message.wire_format import SubscriptionFormat, Welcome
from brain.message.wire_model import WireModel, models_in

PROTOCOL = "brain.v1"
"""Also the name of the subprotocol."""

LAST = ',"last":true}'

ANSWERS = (Published, Authenticated, PresenceSet, Until, Pong, Error)
"""The models of the answers to client frames, of which a stream has none but `subscribed`."""
STREAM_MODELS = [model for model in models_in(AnyServerFrame) if model not in ANSWERS]
"""The models of what a stream of events has."""


class V1Format(SubscriptionFormat):
    """Speaks brain.v1."""

    name = PROTOCOL
    sent_models = tuple(model for model in models_in(AnyServerFrame) if model is not Closed)
    received_models = models_in(AnyClientFrame)

    def greet(self, welcome: Welcome) -> Iterator[str]:
        yield text_for(
            Hello(
                version=brain.__version__,
                connection=str(welcome.connection_id),
                user=welcome.user,
                cursor=str(welcome.cursor),
            )
        )

    def render_for(
        self, handle: TopicHandle, event: Event, match: Match, *, is_last: bool
    ) -> str | None:
        # A client that is cut before it has the state again resumes from before the reset.
        if event.operation is Operation.RESET:
            return reset_text(handle.number, event.data or "null")
        if match is Match.UNDECIDED:
            names = ", ".join(undecided_columns(handle.topic.condition, event))
            reason = f"the event does not have the values of {names}, which the filter compares"
            return reset_text(handle.number, dumps(reason))
        text = (
            f'{{"sub":{handle.number},{what_happened(event, match)},'
            f'"at":"{iso_milliseconds(event.at)}"{self._cursor(event)},'
            f'"txid":"{event.transaction_id}"{LAST if is_last else "}"}'
        )
        return with_number_strings(text) if handle.topic.has_number_strings else text

    def render_commit(self, event: Event, subscriptions: SubscriptionSet) -> str:
        return f'{{"op":"commit","txid":"{event.transaction_id}"{self._cursor(event)}}}'

    def _cursor(self, event: Event) -> str:
        """Return the member with the place after an event, with a comma before it."""
        return f',"cursor":"{event.cursor}"' if self.has_cursors else ""

    def render_page(self, handle: TopicHandle, rows: Iterable[tuple[str, str]]) -> str:
        shown = ",".join(f'{{"key":{key},"row":{row}}}' for key, row in rows)
        channel = dumps(handle.topic.channel)
        text = f'{{"sub":{handle.number},"op":"snapshot","channel":{channel},"rows":[{shown}]}}'
        return with_number_strings(text) if handle.topic.has_number_strings else text

    def render_snapshot_end(self, handle: TopicHandle, cursor: Cursor) -> str:
        return f'{{"sub":{handle.number},"op":"snapshot-end","cursor":"{cursor}"}}'

    def heartbeat(self, now: datetime, cursor: Cursor) -> str | None:
        return text_for(Ping(cursor=str(cursor)))

    def receive(self, text: str, now: datetime, cursor: Callable[[], Cursor]) -> Sequence[Command]:
        frame = parse_frame(text)
        match frame:
            case Refuse():
                return (frame,)
            case PingFrame():
                return (Reply(text_for(Pong(id=frame.id, cursor=str(cursor())))),)
            case PongFrame():
                return ()
            case _:
                return (command_in(frame, text),)

    def confirm(self, command: Command, now: datetime) -> str | None:
        match command:
            case SetPresence(status=status, id=str(id)):
                return text_for(PresenceSet.model_validate({"id": id, "status": status}))
            case _:
                return None

    def refuse(self, reason: str, now: datetime) -> str | None:
        return self.error(Refuse(reason))

    def error(self, refusal: Refuse) -> str:
        """Return the frame that a frame of the client was refused."""
        return text_for(
            Error(
                id=refusal.id,
                code=refusal.code,
                message=refusal.reason,
                advice=ADVICE[refusal.code],
            )
        )

    def authenticated(self, id: str, user: str | None) -> str:
        return text_for(Authenticated(id=id, user=user))

    def subscribed(
        self,
        command: OpenSubscription,
        handle: TopicHandle,
        cursor: Cursor | None,
        columns: Sequence[str] | None,
        replaces: TopicHandle | None = None,
        since: datetime | None = None,
    ) -> str:
        """
        Return the frame that a subscription has begun, with what was granted.

        `cursor` is the place from which the client may resume; None: it is sent the rows. `since`
        is the time from which on it gets what has happened, if it asked for that.
        """
        topic = handle.topic
        where = orjson.Fragment(topic.condition.json) if topic.has_condition else None
        # The number of the rules has no name.
        is_restricted = any(name for name, _ in topic.rules)
        frame = {
            "type": "subscribed",
            "id": command.id,
            "sub": handle.number,
            "channel": topic.channel,
            "key": None if command.key_json is None else orjson.Fragment(command.key_json),
            "where": where,
            "numbers": "string" if topic.has_number_strings else None,
            "columns": None if columns is None else list(columns),
            "restricted": is_restricted or None,
            "cursor": None if cursor is None else str(cursor),
            "since": None if since is None else iso_milliseconds(since),
            "replaces": None if replaces is None else replaces.number,
        }
        return dumps({name: value for name, value in frame.items() if value is not None})

    def unsubscribed(self, id: str, sub: int, refusal: Refuse | None = None) -> str:
        """Return the frame that a subscription has ended; `refusal` is why, if it was not asked."""
        return text_for(Unsubscribed(id=id, sub=sub, code=refusal.code if refusal else None))

    def subscription_reset(self, handle: TopicHandle, reason: str, cursor: Cursor | None) -> str:
        """
        Return the frame that what happened before `cursor` cannot be sent.

        None: the client is sent the rows.
        """
        place = None if cursor is None else str(cursor)
        return text_for(SubscriptionReset(sub=handle.number, reason=reason, cursor=place))

    def live(self, handle: TopicHandle, cursor: Cursor) -> str:
        """Return the frame that a subscription has caught up with the connection."""
        return f'{{"sub":{handle.number},"op":"live","cursor":"{cursor}"}}'

    def published(self, id: str, transaction_id: int) -> str:
        return text_for(Published(id=id, txid=str(transaction_id)))

    def until(self, id: str, transaction_id: int, cursor: Cursor) -> str:
        return text_for(Until(id=id, txid=str(transaction_id), cursor=str(cursor)))


class CatchingUpFormat(V1Format):
    """
    Speaks brain.v1 for a subscription that has not caught up with its connection.

    It sends no heartbeat, as the cursor in it is the place of the whole connection. A transaction
    that has ended for this subscription may not have ended for the others, or ended long ago.
    """

    name = f"{PROTOCOL} catching up"

    def render_commit(self, event: Event, subscriptions: SubscriptionSet) -> str:
        [handle] = subscriptions.handles
        commit = super().render_commit(event, subscriptions)
        return f'{{"sub":{handle.number},{commit[1:]}'

    def heartbeat(self, now: datetime, cursor: Cursor) -> str | None:
        return None


class SnapshotFormat(CatchingUpFormat):
    """Speaks brain.v1 for a subscription that is being sent the rows of its table."""

    name = f"{PROTOCOL} snapshot"
    has_cursors = False


V1 = V1Format()
CATCHING_UP = CatchingUpFormat()
SNAPSHOT = SnapshotFormat()


def what_happened(event: Event, match: Match) -> str:
    """Return the members of a frame that say what happened, as JSON."""
    channel = f'"channel":{dumps(event.channel)}'
    if event.operation is Operation.TRUNCATE:
        return f'"op":"truncate",{channel}'
    if event.operation is Operation.PUBLISH:
        private = "" if event.recipient is None else ',"private":true'
        data = event.data or "null"
        return f'"op":"message",{channel},"type":{dumps(event.type)},"data":{data}{private}'
    key = f'{channel},"key":{event.key}'
    if match is Match.LEAVES:
        return f'"op":"leave",{key}'
    omitted = f',"omitted":{dumps(event.omitted)}' if event.omitted else ""
    if event.operation is Operation.DELETE:
        return f'"op":"delete",{key},"old":{event.old}{omitted}'
    if event.operation is Operation.INSERT or match is Match.ENTERS or event.old is None:
        return f'"op":"insert",{key},"row":{event.data}{omitted}'
    return f'"op":"update",{key},"row":{event.data},"old":{event.old}{omitted}'


def reset_text(sub: int, reason: str) -> str:
    """Return the frame of a reset without a place; `reason` is JSON."""
    return f'{{"sub":{sub},"op":"reset","reason":{reason}}}'


def text_for(model: WireModel) -> str:
    """Return the JSON of a frame, without the keys that have no value and need none."""
    fields = type(model).model_fields
    members = model.model_dump(mode="json").items()
    return dumps({name: v for name, v in members if v or fields[name].is_required()})
