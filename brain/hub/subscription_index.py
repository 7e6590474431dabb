"""Which cohorts an event may concern, without asking all of them."""

from __future__ import annotations

from collections.abc import Iterable

from brain.hub.cohort import Cohort
from brain.message.event import Event
from brain.message.filter_index import FilterIndex
from brain.message.matching import PRECEDENCE, Match

Matched = list[tuple[Event, Match]]


class ChannelIndex:
    """The cohorts with a subscription on one channel."""

    def __init__(self) -> None:
        self.whole: set[Cohort] = set()
        """Those with the whole channel."""
        self.parts: FilterIndex[Cohort] = FilterIndex()
        """Those with rows of it, by key or by filter."""


class SubscriptionIndex:
    """Finds cohorts by channel, by the key of a row, and by the values of columns."""

    def __init__(self) -> None:
        self._channels: dict[str, ChannelIndex] = {}

    def add(self, cohort: Cohort) -> None:
        for topic in cohort.subscriptions.topics:
            channel = self._channels.setdefault(topic.channel, ChannelIndex())
            if topic.is_whole:
                channel.whole.add(cohort)
            else:
                channel.parts.add(topic, cohort)

    def remove(self, cohort: Cohort) -> None:
        for topic in cohort.subscriptions.topics:
            channel = self._channels.get(topic.channel)
            if channel is None:
                continue
            if topic.is_whole:
                channel.whole.discard(cohort)
            else:
                channel.parts.remove(topic, cohort)
            if not channel.whole and not channel.parts:
                del self._channels[topic.channel]

    def find(self, events: Iterable[Event]) -> dict[Cohort, Matched]:
        """Return the cohorts that `events` concern, each with these events, and how."""
        found: dict[Cohort, Matched] = {}
        for event in events:
            channel = self._channels.get(event.channel)
            if channel is None:
                continue
            # It may not be known here yet that there are rules: then nothing is sent.
            if channel.whole and not event.is_restricted:
                one = event, Match.MATCHES
                for cohort in channel.whole:
                    found.setdefault(cohort, []).append(one)
            if channel.parts:
                for cohort, match in self._in_parts(channel, event).items():
                    if cohort not in channel.whole:
                        found.setdefault(cohort, []).append((event, match))
        return found

    def _in_parts(self, channel: ChannelIndex, event: Event) -> dict[Cohort, Match]:
        found: dict[Cohort, Match] = {}
        # The way that takes precedence comes last, and stays.
        for match, cohorts in sorted(channel.parts.find(event), key=order, reverse=True):
            found.update(dict.fromkeys(cohorts, match))
        return found


def order(found: tuple[Match, set[Cohort]]) -> int:
    return PRECEDENCE[found[0]]
