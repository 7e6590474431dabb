from __future__ import annotations

from brain.errors import ConnectionEnded, LogUnreachable
from brain.hub.feed import Feed, Follower


class Client:
    """Follows a feed, and reads what it is written, or does not."""

    def __init__(self, feed: Feed, *, room: int | None = None) -> None:
        self.feed = feed
        self.heard = b""
        self.calls = 0
        self.room = room
        """How many bytes more it takes at once; without bound if None."""
        self.is_gone = False
        self.ended: list[ConnectionEnded] = []
        self.follower = Follower(self.send_now, self.write, self.ended.append)

    def send_now(self, frames: bytes) -> int:
        if self.is_gone:
            raise BrokenPipeError
        taken = frames if self.room is None else frames[: self.room]
        if self.room is not None:
            self.room -= len(taken)
        self.heard += taken
        self.calls += 1
        return len(taken)

    def write(self, frames: bytes) -> None:
        self.heard += frames
        self.calls += 1
        if self.room is not None:
            self.feed.pause(self.follower)

    def read(self) -> None:
        self.room = None
        self.feed.drain(self.follower)


def following(feed: Feed, *, room: int | None = None) -> Client:
    client = Client(feed, room=room)
    feed.follow(client.follower)
    return client


def test_who_comes_is_told_the_state_at_once() -> None:
    feed = Feed()
    feed.tell(b"one", "1")

    assert following(feed).heard == b"one"


def test_who_comes_before_there_is_a_state_is_told_the_first() -> None:
    feed = Feed()
    client = following(feed)
    assert client.calls == 0

    feed.tell(b"one", "1")

    assert client.heard == b"one"


def test_a_state_that_counts_as_the_same_is_not_told_again() -> None:
    feed = Feed()
    client = following(feed)
    feed.tell(b"one at noon", "1")
    feed.tell(b"one at two", "1")

    assert client.heard == b"one at noon"
    assert following(feed).heard == b"one at noon"


def test_everybody_is_told_the_same_bytes() -> None:
    feed = Feed()
    taken: list[bytes] = []

    def take(frames: bytes) -> int:
        taken.append(frames)
        return len(frames)

    for _ in range(3):
        feed.follow(Follower(take, taken.append, lambda reason: None))
    frame = b"one"
    feed.tell(frame, "1")

    assert [each is frame for each in taken] == [True] * 3


def test_who_does_not_read_is_told_the_newest_when_it_does_and_nothing_between() -> None:
    feed = Feed()
    slow, quick = following(feed, room=2), following(feed)
    for number in range(1, 100):
        feed.tell(b"state %d;" % number, str(number))
    assert slow.heard == b"state 1;"

    slow.read()

    assert slow.heard == b"state 1;state 99;"
    assert quick.heard.count(b";") == 99


def test_who_read_in_vain_is_not_told_what_it_knows() -> None:
    feed = Feed()
    slow = following(feed, room=0)
    feed.tell(b"one", "1")
    feed.tell(b"two", "2")
    feed.tell(b"one", "1")

    slow.read()

    assert slow.heard == b"one"


def test_a_frame_that_is_not_taken_at_once_is_written_to_its_end() -> None:
    feed = Feed()
    slow = following(feed, room=3)
    feed.tell(b"0123456789", "1")

    assert slow.heard == b"0123456789"


def test_who_has_gone_without_a_word_does_not_keep_the_others_from_being_told() -> None:
    feed = Feed()
    clients = [following(feed) for _ in range(3)]
    clients[1].is_gone = True
    feed.tell(b"one", "1")

    assert clients[0].heard == clients[2].heard == b"one"


def test_who_has_left_is_told_nothing() -> None:
    feed = Feed()
    client = following(feed)
    assert feed.is_heard
    feed.leave(client.follower)
    feed.leave(client.follower)
    feed.tell(b"one", "1")

    assert not feed.is_heard
    assert client.calls == 0


def test_the_end_comes_to_all_or_to_those_who_were_told_nothing() -> None:
    feed = Feed()
    told = following(feed)
    feed.tell(b"one", "1")
    untold = Client(feed)
    untold.follower.is_paused = True
    feed.follow(untold.follower)
    reason = LogUnreachable("it is gone")

    feed.end(reason, only_untold=True)
    assert (told.ended, untold.ended) == ([], [reason])
    feed.end(reason)
    assert (told.ended, untold.ended) == ([reason], [reason])
    assert not feed.is_heard
