from __future__ import annotations

from brain.errors import ConnectionEnded, LogUnavailable
from brain.feeds.fanout import FeedFanout, FeedSubscriber
from brain.message.cursor import Cursor


class PlainFraming:
    """Leaves texts unchanged, and counts the frames."""

    keep_alive = b""
    transport = "test"

    def __init__(self, name: str = "plain") -> None:
        self.name = name
        self.frames = 0

    def frame(self, text: str, cursor: Cursor | None = None) -> bytes:
        self.frames += 1
        return text.encode()


PLAIN = PlainFraming()


class Client:
    """A subscriber of a feed and its transport, which may stop reading."""

    def __init__(
        self, feed: FeedFanout, framing: PlainFraming = PLAIN, *, room: int | None = None
    ) -> None:
        self.feed = feed
        self.received = b""
        self.frames: list[bytes] = []
        """The argument of each call of `send_now` and `write`."""
        self.room = room
        """The number of bytes that `send_now` still accepts; None for no limit."""
        self.is_gone = False
        self.ended: list[ConnectionEnded] = []
        self.subscriber = FeedSubscriber(self, framing, self.ended.append)

    def send_now(self, frames: bytes) -> int:
        if self.is_gone:
            raise BrokenPipeError
        taken = frames if self.room is None else frames[: self.room]
        if self.room is not None:
            self.room -= len(taken)
        self.received += taken
        self.frames.append(frames)
        return len(taken)

    def write(self, frames: bytes) -> None:
        self.received += frames
        self.frames.append(frames)
        if self.room is not None:
            self.feed.pause_writing(self.subscriber)

    def read(self) -> None:
        self.room = None
        self.feed.resume_writing(self.subscriber)


def subscribed(
    feed: FeedFanout, framing: PlainFraming = PLAIN, *, room: int | None = None
) -> Client:
    client = Client(feed, framing, room=room)
    feed.add(client.subscriber)
    return client


def test_a_new_subscriber_is_sent_the_state_at_once() -> None:
    feed = FeedFanout()
    feed.publish("one", "1")

    assert subscribed(feed).received == b"one"


def test_a_subscriber_that_comes_before_there_is_a_state_is_sent_the_first() -> None:
    feed = FeedFanout()
    client = subscribed(feed)
    assert client.frames == []

    feed.publish("one", "1")

    assert client.received == b"one"


def test_a_state_with_the_same_etag_is_not_sent_again() -> None:
    feed = FeedFanout()
    client = subscribed(feed)
    feed.publish("one at noon", "1")
    feed.publish("one at two", "1")

    assert client.received == b"one at noon"
    assert subscribed(feed).received == b"one at noon"


def test_a_state_is_framed_once_and_all_subscribers_are_sent_the_same_bytes() -> None:
    feed, framing = FeedFanout(), PlainFraming()
    clients = [subscribed(feed, framing) for _ in range(3)]
    feed.publish("one", "1")
    clients += [subscribed(feed, framing) for _ in range(2)]

    frames = [frame for client in clients for frame in client.frames]
    assert len(frames) == 5
    assert all(frame is frames[0] for frame in frames)
    assert framing.frames == 1


def test_a_state_is_framed_once_per_framing_and_anew_when_it_has_changed() -> None:
    feed, one, other = FeedFanout(), PlainFraming("one"), PlainFraming("other")
    clients = [subscribed(feed, framing) for framing in (one, other, one, other)]
    feed.publish("first;", "1")
    feed.publish("second;", "2")

    assert {client.received for client in clients} == {b"first;second;"}
    assert (one.frames, other.frames) == (2, 2)


def test_a_subscriber_that_reads_again_is_sent_the_newest_state_alone() -> None:
    feed = FeedFanout()
    slow, quick = subscribed(feed, room=2), subscribed(feed)
    for number in range(1, 100):
        feed.publish(f"state {number};", str(number))
    assert slow.received == b"state 1;"

    slow.read()

    assert slow.received == b"state 1;state 99;"
    assert quick.received.count(b";") == 99


def test_a_subscriber_that_has_the_state_is_not_sent_it_when_it_reads_on() -> None:
    feed = FeedFanout()
    slow = subscribed(feed, room=0)
    feed.publish("one", "1")
    feed.publish("two", "2")
    feed.publish("one", "1")

    slow.read()

    assert slow.received == b"one"


def test_a_frame_that_is_not_taken_at_once_is_written_to_its_end() -> None:
    feed = FeedFanout()
    slow = subscribed(feed, room=3)
    feed.publish("0123456789", "1")

    assert slow.received == b"0123456789"


def test_a_lost_connection_does_not_keep_the_state_from_the_others() -> None:
    feed = FeedFanout()
    clients = [subscribed(feed) for _ in range(3)]
    clients[1].is_gone = True
    feed.publish("one", "1")

    assert clients[0].received == clients[2].received == b"one"


def test_a_subscriber_that_was_removed_is_sent_nothing() -> None:
    feed = FeedFanout()
    client = subscribed(feed)
    assert feed.has_subscribers
    feed.remove(client.subscriber)
    feed.remove(client.subscriber)
    feed.publish("one", "1")

    assert not feed.has_subscribers
    assert client.frames == []


def test_all_subscribers_are_ended_or_those_without_a_state() -> None:
    feed = FeedFanout()
    served = subscribed(feed)
    feed.publish("one", "1")
    waiting = Client(feed)
    waiting.subscriber.is_paused = True
    feed.add(waiting.subscriber)
    reason = LogUnavailable("it is gone")

    feed.end(reason, only_waiting=True)
    assert (served.ended, waiting.ended) == ([], [reason])
    feed.end(reason)
    assert (served.ended, waiting.ended) == ([reason], [reason])
    assert not feed.has_subscribers
