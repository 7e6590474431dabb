"""Decides which topic a client of brain.v1 gets for what it asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from brain.errors import FilterRefused, LogUnavailable
from brain.message.commands import OpenSubscription, Refuse
from brain.message.cursor import LogStart
from brain.message.matching import ReadAccess, Topic, has_too_many_combinations
from brain.session.session import RETRY_SECONDS, SessionContext
from brain.session.sources import Sources
from brain.session.topic_subscriptions import may_read, topic_of

MOST_EVALUATED = 1000
"""Values that the filters of a client compare for each event, besides those that are looked up."""
COLUMNS_CHANGED = "the columns that the filter compares have changed"


async def granted_topic(
    command: OpenSubscription,
    access: ReadAccess,
    context: SessionContext,
    former: frozenset[Topic] = frozenset(),
) -> Topic | Refuse:
    """
    Return the topic for a client that has `former` ones, or why it gets none.

    Raises `LogUnavailable`.
    """
    if not may_read(command, access):
        return Refuse(f"not allowed to read {command.channel}", "not_allowed", command.id)
    topic = await bound_topic(command, access, context)
    if isinstance(topic, Refuse):
        return topic
    topics = former | {topic}
    if sum(one.evaluated for one in topics) > MOST_EVALUATED:
        reason = (
            f"the filters of a client may compare {MOST_EVALUATED} values together, besides those"
            " that a row has to equal"
        )
    elif has_too_many_combinations(topics):
        reason = "too many subscriptions: their lists and row rules have too many combinations"
    else:
        return topic
    return Refuse(reason, "too_many_subscriptions", command.id)


async def bound_topic(
    command: OpenSubscription, access: ReadAccess, context: SessionContext
) -> Topic | Refuse:
    """
    Return the topic of which a client may read all, with the types that columns have now.

    Raises `LogUnavailable`.
    """
    try:
        where = await context.bind_filter(command.channel, command.where)
    except FilterRefused as error:
        return Refuse(str(error), "invalid_filter", command.id)
    return topic_of(command, where, access) or Refuse("", "not_allowed")


async def start_of(command: OpenSubscription, sources: Sources) -> LogStart | None:
    """
    Return the place in the log that a client gives as a time.

    Raises `LogUnavailable`.
    """
    if command.since_seconds is None:
        return None
    return await sources.history.since(command.since_seconds)


async def rebound_topics(
    commands: Sequence[OpenSubscription], access: ReadAccess, context: SessionContext
) -> list[Topic | Refuse]:
    """
    Return the topic of each command, after columns have changed.

    Raises `LogUnavailable` if they cannot be looked up for long.
    """
    failure = LogUnavailable()
    for seconds in RETRY_SECONDS:
        await asyncio.sleep(seconds)
        try:
            return [await bound_topic(command, access, context) for command in commands]
        except LogUnavailable as error:
            failure = error
    raise failure
