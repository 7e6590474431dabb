"""Which cohorts an event may concern, without asking all of them."""

from __future__ import annotations

from collections.abc import Iterable

from brain.hub.cohort import Cohort
from brain.message.event import Event, Operation


class ChannelIndex:
    """The cohorts with a subscription on one channel."""

    def __init__(self) -> None:
        self.whole: set[Cohort] = set()
        """Those with the whole channel, or a filter on it."""
        self.rows: dict[str, set[Cohort]] = {}
        """Those with one row, by its key."""


class SubscriptionIndex:
    """Finds cohorts by channel, and by row only where a cohort has subscribed to rows."""

    def __init__(self) -> None:
        self._channels: dict[str, ChannelIndex] = {}

    def add(self, cohort: Cohort) -> None:
        for topic in cohort.subscriptions.topics:
            channel = self._channels.setdefault(topic.channel, ChannelIndex())
            if topic.key is None:
                channel.whole.add(cohort)
            else:
                channel.rows.setdefault(topic.key, set()).add(cohort)

    def remove(self, cohort: Cohort) -> None:
        for topic in cohort.subscriptions.topics:
            channel = self._channels.get(topic.channel)
            if channel is None:
                continue
            channel.whole.discard(cohort)
            if topic.key is not None and topic.key in channel.rows:
                channel.rows[topic.key].discard(cohort)
                if not channel.rows[topic.key]:
                    del channel.rows[topic.key]
            if not channel.whole and not channel.rows:
                del self._channels[topic.channel]

    def cohorts_of(self, events: Iterable[Event]) -> set[Cohort]:
        """Return the cohorts that any of `events` may concern."""
        found: set[Cohort] = set()
        for event in events:
            channel = self._channels.get(event.channel)
            if channel is None:
                continue
            found |= channel.whole
            if channel.rows and event.operation is not Operation.PUBLISH:
                if event.key_text is None:  # all rows at once
                    found.update(*channel.rows.values())
                else:
                    found |= channel.rows.get(event.key_text, set())
        return found
