"""Which topics an event concerns, and the cohorts that are subscribed to them."""

from __future__ import annotations

from collections.abc import Iterable

from brain.hub.cohort import Addressed, SubscriptionCohort
from brain.message.event import Event
from brain.message.run import MatchedRun
from brain.message.subscription_set import HandleIndex
from brain.message.topic_handle import TopicHandle


class TopicIndex:
    """
    Finds topics, and the cohorts with a subscription on them.

    So each topic is looked up once, in however many subscription sets it is.
    """

    def __init__(self) -> None:
        self.handles = HandleIndex()
        self._cohorts: dict[TopicHandle, set[SubscriptionCohort]] = {}

    def __bool__(self) -> bool:
        return bool(self._cohorts)

    def add(self, cohort: SubscriptionCohort) -> None:
        for handle in cohort.subscriptions.handles:
            cohorts = self._cohorts.get(handle)
            if cohorts is None:
                cohorts = self._cohorts[handle] = set()
                self.handles.add(handle.topic, handle)
            cohorts.add(cohort)

    def remove(self, cohort: SubscriptionCohort) -> None:
        for handle in cohort.subscriptions.handles:
            cohorts = self._cohorts[handle]
            cohorts.discard(cohort)
            if not cohorts:
                del self._cohorts[handle]
                self.handles.remove(handle.topic, handle)

    def cohorts(self) -> set[SubscriptionCohort]:
        return set().union(*self._cohorts.values())

    def address(
        self, events: Iterable[Event], run: MatchedRun
    ) -> dict[SubscriptionCohort, list[Addressed]]:
        """Return what each cohort gets of `events`, in which topics; they are a part of `run`."""
        addressed: dict[SubscriptionCohort, list[Addressed]] = {}
        for event in events:
            for handle, match in run.matches(event):
                one = event, handle, match, run.is_last(event, handle)
                # A topic without subscribers by now is none.
                for cohort in self._cohorts.get(handle, ()):
                    addressed.setdefault(cohort, []).append(one)
        return addressed
