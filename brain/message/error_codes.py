"""The codes of errors that clients are sent, and what a client can do about each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

ErrorCode = Literal[
    "malformed",
    "not_allowed",
    "invalid_filter",
    "too_many_subscriptions",
    "unknown_subscription",
    "snapshot_unavailable",
    "invalid_token",
    "wrong_user",
    "user_needed",
    "too_many_connections",
    "rate_limit",
    "invalid_message",
    "message_too_large",
    "unknown_transaction",
    "rolled_back",
    "too_many_transactions",
    "unavailable",
]

ADVICE: Mapping[ErrorCode, str] = {
    "malformed": "Send a frame as the section brain.v1 of docs/protocol.md describes it.",
    "not_allowed": "Send auth with a token that allows it.",
    "invalid_filter": "Name columns that the channel has, with values of their types.",
    "too_many_subscriptions": "End subscriptions of this connection, or of the user's others.",
    "unknown_subscription": "Name a sub of this connection that has not ended.",
    "snapshot_unavailable": "Read the rows from the database, or subscribe without a snapshot.",
    "invalid_token": "Send auth with a token that has not expired and was not revoked.",
    "wrong_user": "Open another connection for another user.",
    "user_needed": "Send auth with the token of a user.",
    "too_many_connections": "Close another connection of this user.",
    "rate_limit": "Send less, or the connection will be closed.",
    "invalid_message": "Name a channel and a type of 1 to 255 characters, and valid JSON.",
    "message_too_large": "Publish a reference to the data in place of the data.",
    "unknown_transaction": "Send the text of pg_current_xact_id() of this database.",
    "rolled_back": "Do not wait for it: nothing of it will be sent.",
    "too_many_transactions": "Wait for the answers to earlier until frames.",
    "unavailable": "Try again in a few seconds.",
}
"""Of every code."""
