"""All cohorts of a hub, and the indexes that find them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from brain.hub.cohort import Cohort, SubscriptionCohort
from brain.hub.subscriber import Subscriber
from brain.hub.subscription_index import SubscriptionIndex
from brain.hub.topic_index import TopicIndex
from brain.hub.traffic import Traffic
from brain.message.subscription_encoding import SubscriptionEncoding
from brain.message.subscription_set import SubscriptionSet


class Cohorts:
    """The subscribers that keep up, by what they get."""

    def __init__(self, clock: Callable[[], float], traffic: Traffic) -> None:
        self._clock = clock
        self._traffic = traffic
        self._cohorts: dict[tuple[str, SubscriptionSet], Cohort] = {}
        self.index = SubscriptionIndex()
        """Finds cohorts that get the same message, however they subscribed to its event."""
        self.topics = TopicIndex()
        """Finds cohorts that get a message for each subscription, which it names."""

    def __len__(self) -> int:
        return len(self._cohorts)

    def __iter__(self) -> Iterator[Cohort]:
        """Iterate over all of them, also while they are changed."""
        return iter(list(self._cohorts.values()))

    def find(self, subscriber: Subscriber) -> Cohort | None:
        """Return the cohort in which a subscriber is; None: it does not keep up."""
        cohort = self._cohorts.get((subscriber.encoding.name, subscriber.subscriptions))
        return cohort if cohort is not None and subscriber in cohort.members else None

    def change(self, subscriber: Subscriber, subscriptions: SubscriptionSet) -> None:
        """
        Replace what a subscriber gets, wherever it stands.

        It is in its new cohort before it leaves the former one: of what both get, the index is left
        as it is.
        """
        former = self.find(subscriber)
        subscriber.subscriptions = subscriptions
        if former is not None and former.subscriptions != subscriptions:
            self.join(subscriber)
            self._remove(former, subscriber)

    def join(self, subscriber: Subscriber) -> None:
        key = subscriber.encoding.name, subscriber.subscriptions
        cohort = self._cohorts.get(key)
        if cohort is None:
            cohort = self._cohorts[key] = self._new(subscriber)
        cohort.members[subscriber] = subscriber.send_now

    def leave(self, subscriber: Subscriber) -> bool:
        """Take a subscriber out of its cohort; return False if it was in none."""
        cohort = self.find(subscriber)
        if cohort is None:
            return False
        self._remove(cohort, subscriber)
        return True

    def _remove(self, cohort: Cohort, subscriber: Subscriber) -> None:
        del cohort.members[subscriber]
        if not cohort.members:
            del self._cohorts[cohort.encoding.name, cohort.subscriptions]
            if isinstance(cohort, SubscriptionCohort):
                self.topics.remove(cohort)
            else:
                self.index.remove(cohort)

    def _new(self, subscriber: Subscriber) -> Cohort:
        encoding, subscriptions = subscriber.encoding, subscriber.subscriptions
        if isinstance(encoding, SubscriptionEncoding):
            addressed = SubscriptionCohort(encoding, subscriptions, self._clock(), self._traffic)
            self.topics.add(addressed)
            return addressed
        cohort = Cohort(encoding, subscriptions, self._clock(), self._traffic)
        self.index.add(cohort)
        return cohort
