"""
The commands in the client frames of brain.v1.

Source: docs/protocol.md, "brain.v1".
"""

from __future__ import annotations

from typing import Any, assert_never

from pydantic import TypeAdapter, ValidationError

from brain.errors import FilterRefused
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
from brain.message.condition import EVERYTHING
from brain.message.condition_parsing import parse_condition
from brain.message.json_text import is_unicode, key_text, split_array, split_object, text_of
from brain.message.matching import (
    LONGEST_TEXT,
    SHOWN_CHARACTERS,
    filter_json,
)
from brain.message.page import MOST_ROWS
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
    key_json = text_of(members["key"]) if frame.key is not None else None
    if "\0" in frame.channel:
        return Refuse("no channel has a zero in its name", "malformed", frame.id)
    if key_json is not None and not is_key(frame.key, key_json):
        reason = (
            "key: the values of a primary key are strings, numbers, booleans or null, with at most"
            f" {LONGEST_TEXT} characters"
        )
        return Refuse(reason, "malformed", frame.id)
    if frame.limit is not None and frame.snapshot is not True:
        return Refuse('limit: only "snapshot": true has pages', "malformed", frame.id)
    if frame.since is not None and frame.after is not None:
        return Refuse("since: with after, the place to begin at is given", "malformed", frame.id)
    try:
        where = EVERYTHING if frame.where is None else parse_condition(frame.where)
    except FilterRefused as error:
        return Refuse(str(error), "invalid_filter", frame.id)
    return OpenSubscription(
        frame.id,
        frame.channel,
        None if key_json is None else name_of_row(key_json),
        where,
        has_number_strings=frame.numbers is not None,
        wants_snapshot=frame.snapshot is not False,
        is_exact=frame.snapshot == "exact",
        page_rows=frame.limit or MOST_ROWS,
        after=frame.after,
        since_seconds=frame.since,
        key_json=key_json,
    )


def is_key(values: Any, key_json: str) -> bool:
    """Return False for what is the primary key of no row that is sent."""
    # Of the numbers, only those that JSON does not have are floats.
    is_nested = any(isinstance(value, list | dict | float) for value in values)
    texts = [value for value in values if isinstance(value, str)]
    return not is_nested and len(key_json) <= LONGEST_TEXT and all(map(is_unicode, texts))


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
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    key = errors[0]["loc"][1:2]  # below it there are the alternatives of its type
    place = str(*key)[:SHOWN_CHARACTERS] or "type"
    shown = place if is_unicode(place) else "a key"
    alternatives = [one["msg"] for one in errors if one["loc"][1:2] == key]
    return f"{shown}: {' or '.join(alternatives)}"
