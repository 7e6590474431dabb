"""
The commands in the client frames of brain.v1.

Source: docs/protocol.md, "brain.v1".
"""

from __future__ import annotations

from typing import Any, assert_never

from pydantic import TypeAdapter, ValidationError

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
from brain.message.json_text import is_unicode, key_text, split_array, split_object, text_of
from brain.message.matching import Filter, filter_json, parse_filter
from brain.message.v1_client_frames import (
    LONGEST_ID,
    AnyClientFrame,
    AuthFrame,
    PresenceFrame,
    PublishFrame,
    SubscribeFrame,
    UnsubscribeFrame,
    UntilFrame,
)

Request = SubscribeFrame | UnsubscribeFrame | PublishFrame | AuthFrame | PresenceFrame | UntilFrame
"""A client frame that a session has to execute."""

CLIENT_FRAME: TypeAdapter[AnyClientFrame] = TypeAdapter(AnyClientFrame)


def parse_frame(text: str) -> AnyClientFrame | Refuse:
    """Return a client frame, or why it is refused."""
    id = None
    try:
        frame = filter_json(text)
        if not isinstance(frame, dict):
            return Refuse("a frame is a JSON object")
        id = id_in(frame)
        return CLIENT_FRAME.validate_python(frame)
    except ValidationError as error:
        return Refuse(first_problem(error), "malformed", id)
    except (ValueError, RecursionError):
        return Refuse("the frame is not JSON", "malformed", id)


def command_in(frame: Request, text: str) -> Command:
    """Return the command in a client frame, of which `text` is the JSON."""
    match frame:
        case SubscribeFrame():
            return opened(frame, text)
        case UnsubscribeFrame():
            return CloseSubscription(frame.id, frame.sub)
        case PublishFrame():
            data = text_of(split_object(text).get("data", "null"))
            return Publish(frame.id, frame.channel, frame.message_type, data, frame.to)
        case AuthFrame():
            return Reauthenticate(frame.token, frame.id)
        case PresenceFrame():
            return SetPresence(frame.status, frame.id)
        case UntilFrame():
            return AwaitTransaction(frame.id, int(frame.txid))
        case _:
            assert_never(frame)


def opened(frame: SubscribeFrame, text: str) -> OpenSubscription | Refuse:
    """Return what a `subscribe` asks for, or why it is refused."""
    members = split_object(text)
    if "\0" in frame.channel:
        return Refuse("no channel has a zero in its name", "malformed", frame.id)
    key_json = text_of(members["key"]) if frame.key is not None else None
    where_json = text_of(members["where"]) if frame.where is not None else None
    if key_json is not None and not (is_key(frame.key) and is_unicode(key_json)):
        reason = "key: the values of a primary key are strings, numbers, booleans or null"
        return Refuse(reason, "malformed", frame.id)
    try:
        where = where_of(frame.where)
    except ValueError as error:
        return Refuse(str(error), "invalid_filter", frame.id)
    return OpenSubscription(
        frame.id,
        frame.channel,
        None if key_json is None else name_of_row(key_json),
        where,
        has_number_strings=frame.numbers is not None,
        wants_snapshot=frame.snapshot,
        after=frame.after,
        key_json=key_json,
        where_json=where_json,
    )


def where_of(where: Any) -> Filter:
    """Return the filter in a `subscribe`. Raises `ValueError`, with what is wrong."""
    return () if where is None else parse_filter(where)


def is_key(values: Any) -> bool:
    return not any(isinstance(value, list | dict) for value in values)


def name_of_row(key_json: str) -> str:
    """Return the name of a row in topics, from the JSON of its key as a client writes it."""
    return key_text(f"[{', '.join(text_of(value).strip() for value in split_array(key_json))}]")


def id_in(frame: dict[str, Any]) -> str | None:
    """Return the id of a client frame that may be invalid otherwise."""
    id = frame.get("id")
    is_valid = isinstance(id, str) and 0 < len(id) <= LONGEST_ID and is_unicode(id)
    return id if is_valid else None


def first_problem(error: ValidationError) -> str:
    """Return what is wrong with a client frame, in a sentence."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"][1:])
    return f"{place or 'type'}: {first['msg']}"
