"""The channel on which the presence of users is published, and what subscriptions to it may ask."""

from __future__ import annotations

from brain.message.commands import OpenSubscription, Refuse
from brain.message.condition_binding import comparisons
from brain.message.json_text import dumps

PRESENCE_CHANNEL = "presence"
USER = "userId"
STATUS = "status"


def presence_row(user: str, status: str) -> str:
    """Return what is published of a user, as a snapshot has it."""
    return dumps({USER: user, STATUS: status})


def presence_refusal(command: OpenSubscription) -> Refuse | None:
    """Return why the users who are present cannot be kept by a subscription, if so."""
    if command.key is not None:
        reason = f'key: presence has no rows; ask for one user by where: {{"{USER}": "ann"}}'
        return Refuse(reason, "malformed", command.id)
    others = sorted({one.column.name for one in comparisons(command.where)} - {USER})
    if others:
        # A user whose status ceases to match would stay: a message has no former values.
        reason = (
            f"where: {others[0]}: with a snapshot of presence, only {USER} can be compared;"
            " choose by status in the client"
        )
        return Refuse(reason, "invalid_filter", command.id)
    return None
