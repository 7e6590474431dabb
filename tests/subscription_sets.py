"""Subscriptions of tests."""

from __future__ import annotations

from collections.abc import Iterable

from brain.message.matching import Topic
from brain.message.subscription_set import SubscriptionSet, subscription_set


def in_channels(names: Iterable[str]) -> SubscriptionSet:
    """Return the subscriptions to whole channels."""
    return subscription_set(frozenset(map(Topic, names)))
