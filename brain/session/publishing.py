"""Publishes messages of clients."""

from __future__ import annotations

from brain.auth.identity import Identity
from brain.errors import LogUnavailable, MessageRefused, MessageTooLarge
from brain.message.commands import Publish, Refuse
from brain.session.sources import Sources


async def publish(command: Publish, identity: Identity, sources: Sources) -> int | Refuse:
    """Return the id of the transaction in which a message was published, or why it was not."""
    if not identity.may_publish(command.channel):
        return Refuse(f"not allowed to publish on {command.channel}", "not_allowed", command.id)
    try:
        return await sources.publish(command.channel, command.type, command.data, command.recipient)
    except MessageTooLarge as error:
        return Refuse(str(error), "message_too_large", command.id)
    except MessageRefused as error:
        return Refuse(str(error), "invalid_message", command.id)
    except LogUnavailable as error:
        return Refuse(str(error), "unavailable", command.id)
