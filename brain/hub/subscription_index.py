"""Which cohorts an event may concern, without asking all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import NamedTuple

from brain.hub.cohort import Cohort
from brain.message.event import Event, Operation
from brain.message.filter_index import FilterIndex, FilterIndexStatistics
from brain.message.matching import Match

Matched = list[tuple[Event, Match]]


class Found(NamedTuple):
    """How an event concerns cohorts."""

    event: Event
    whole: Set[Cohort]
    """Those with the whole channel."""
    parts: Mapping[Cohort, Match]
    """Those with parts of it that it concerns."""
    resets: bool
    """True if clients lack rows after it: it is a reset, or does not say whether a row matches."""


def by_cohort(found: Iterable[Found]) -> tuple[set[Cohort], dict[Cohort, Matched]]:
    """
    Return the cohorts that events concern.

    Those with a whole channel may be concerned by any of the events; the others by those with
    which they are returned.
    """
    whole: set[Cohort] = set()
    parts: dict[Cohort, Matched] = {}
    for one in found:
        whole |= one.whole
        for cohort, match in one.parts.items():
            parts.setdefault(cohort, []).append((one.event, match))
    for cohort in whole & parts.keys():
        del parts[cohort]
    return whole, parts


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

    def find(self, events: Iterable[Event]) -> list[Found]:
        """Return how `events` concern cohorts, without those that concern none."""
        found = []
        for event in events:
            channel = self._channels.get(event.channel)
            if channel is None:
                continue
            ways = sorted(channel.parts.find(event), key=order, reverse=True)
            parts: dict[Cohort, Match] = {}
            # Of the ways in which an event concerns a cohort, the first one in `Match` holds.
            for match, cohorts in ways:
                parts.update(dict.fromkeys(cohorts, match))
            if channel.whole or parts:
                is_reset = event.operation is Operation.RESET
                resets = is_reset or any(match is Match.UNDECIDED for match, _ in ways)
                found.append(Found(event, channel.whole, parts, resets))
        return found

    def statistics(self) -> FilterIndexStatistics:
        """Return what the filters of all channels take."""
        each = [channel.parts.statistics() for channel in self._channels.values()]
        return FilterIndexStatistics(*map(sum, zip((0, 0, 0, 0), *each, strict=True)))


ORDER = {match: place for place, match in enumerate(Match)}


def order(found: tuple[Match, set[Cohort]]) -> int:
    return ORDER[found[0]]
