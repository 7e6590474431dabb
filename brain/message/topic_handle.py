"""The numbers by which clients of brain.v1 know what they are subscribed to."""

from __future__ import annotations

from itertools import count
from weakref import WeakValueDictionary

from brain.message.matching import Topic


class TopicHandle:
    """
    A topic with the number that all its subscribers of this process have for it.

    So all of them get the same bytes. A handle is there as long as one of them has it. Its number
    is never used again: a client may still have it.
    """

    __slots__ = ("__weakref__", "number", "topic")

    def __init__(self, topic: Topic, number: int) -> None:
        self.topic = topic
        self.number = number


HANDLES: WeakValueDictionary[Topic, TopicHandle] = WeakValueDictionary()
"""Those of the topics with subscribers."""
NUMBERS = count(1)


def topic_handle(topic: Topic) -> TopicHandle:
    """Return the one handle for all subscribers of a topic."""
    found = HANDLES.get(topic)
    if found is None:
        found = HANDLES[topic] = TopicHandle(topic, next(NUMBERS))
    return found
