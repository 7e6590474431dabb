"""The topics of brain.v1, and which of them an event concerns."""

from __future__ import annotations

import pytest

from brain.message.matching import RowAccess, Topic
from brain.message.subscription_set import HandleIndex
from brain.message.topic_handle import topic_handle

NO_ROW = Topic("orders", rows=RowAccess('{"":[3],"customer":["7"],"team":[]}'))
SOME = Topic("orders", rows=RowAccess('{"":[3],"customer":["7"],"team":["red"]}'))


@pytest.mark.parametrize("order", [(NO_ROW, SOME), (SOME, NO_ROW)])
def test_a_topic_that_no_row_matches_is_removed_before_and_after_others(
    order: tuple[Topic, Topic],
) -> None:
    index = HandleIndex()
    handles = [topic_handle(topic) for topic in order]
    for handle in handles:
        index.add(handle.topic, handle)
    for handle in handles:
        index.remove(handle.topic, handle)
    index.add(handles[0].topic, handles[0])
    index.remove(handles[0].topic, handles[0])
