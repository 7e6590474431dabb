"""A client of brain.v1 knows when it has all of a transaction, wherever the log is cut."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from brain.database.log import find_ends
from brain.hub.hub import Hub
from brain.message.cursor import Cursor
from brain.message.encodings import encoding_of
from brain.message.event import Batch, Event, Operation
from brain.message.matching import Topic, parse_filter
from brain.message.subscription_set import subscription_set
from brain.message.topic_handle import topic_handle
from brain.message.v1_format import V1
from brain.transport.event_stream_frames import EVENT_STREAM
from brain.transport.websocket_frames import WEBSOCKET_FRAMING, texts_of
from tests.message.rows import AT, as_json

NONCE = 5
TOPICS = [
    Topic("a"),
    Topic("b"),
    Topic("a", "1"),
    Topic("a", "2"),
    Topic("a", where=parse_filter({"status": "x"})),
    Topic("b", where=parse_filter({"status": "y"})),
]
USERS = ["ann", "bob", None]


class Client:
    """A subscriber that reads now and then."""

    def __init__(
        self, hub: Hub, topics: frozenset[Topic], user: str | None, after: Cursor | None = None
    ) -> None:
        self.hub = hub
        self.topics, self.user, self.after = topics, user, after
        self.frames: list[dict[str, Any]] = []
        self.is_reading = True
        self.subscriber = hub.subscribe(
            encoding_of(V1, WEBSOCKET_FRAMING),
            subscription_set(topics),
            self,
            lambda reason: pytest.fail(str(reason)),
            after=after,
            user=user,
        )
        assert hub.resume(self.subscriber)

    def send_now(self, frames: bytes) -> int:
        if not self.is_reading:
            return 0
        self.frames += map(json.loads, texts_of(frames))
        return len(frames)

    def write(self, frames: bytes) -> None:
        self.frames += map(json.loads, texts_of(frames))
        if not self.is_reading:
            self.hub.pause_writing(self.subscriber)

    def read(self) -> None:
        self.is_reading = True
        if self.subscriber.is_paused:
            self.hub.resume_writing(self.subscriber)


def concerns(topic: Topic, event: Event) -> bool:
    if event.channel != topic.channel or (topic.key and event.key != f"[{topic.key}]"):
        return False
    rows = [json.loads(text) for text in (event.data, event.old) if text is not None]
    return all(any(row["status"] == value for row in rows) for _, value, _ in topic.where)


def written_log(random: Random, ticks: int) -> list[Event]:
    """Return a log in which the transactions of each tick are interleaved."""
    log: list[Event] = []
    transaction_id = id = 0
    for tick in range(1, ticks + 1):
        parts: list[int] = []
        for _ in range(random.randint(1, 4)):
            transaction_id += 1
            parts += [transaction_id] * random.choice([1, 2, 3, 20])
        random.shuffle(parts)
        for part in parts:
            id += random.randint(1, 3)
            log.append(an_event(random, Cursor(tick, NONCE, id), part))
    return log


def an_event(random: Random, cursor: Cursor, transaction_id: int) -> Event:
    data, old = (as_json({"status": random.choice("xyz")}) for _ in range(2))
    operation = random.choice([Operation.INSERT, Operation.UPDATE, Operation.PUBLISH])
    is_row = operation is not Operation.PUBLISH
    return Event(
        *cursor,
        AT,
        random.choice("ab"),
        operation,
        as_json([random.randint(1, 3)]) if is_row else None,
        data,
        old if operation is Operation.UPDATE else None,
        # So large that a run has several pieces.
        random.choice([300, 100_000]),
        None if is_row else "note",
        recipient=None if is_row else random.choice(USERS),
        transaction_id=transaction_id,
    )


def pages(random: Random, log: list[Event], most: int) -> Iterator[Batch]:
    """Yield the log as a reader does, in pages that may end within a tick."""
    start = 0
    while start < len(log):
        end = min(start + random.randint(1, most), len(log))
        page = log[start:end]
        first, last = page[0].cursor.tick, page[-1].cursor.tick
        begun = {event.transaction_id for event in log[:start] if event.cursor.tick == first}
        unfinished = {event.transaction_id for event in log[end:] if event.cursor.tick == last}
        find_ends(page, begun, unfinished)
        ends_tick = end == len(log) or log[end].cursor.tick != last
        yield Batch(tuple(page), Cursor(last, NONCE) if ends_tick else page[-1].cursor)
        start = end


def check(client: Client, log: list[Event]) -> None:
    """Fail unless the frames are all that the client has to get, and say where it ends."""
    numbers = {topic_handle(topic).number: topic for topic in client.topics}
    expected = [
        (number, event)
        for event in log
        if (client.after is None or event.cursor.place > client.after.place)
        and event.recipient in (None, client.user)
        for number, topic in sorted(numbers.items())
        if concerns(topic, event)
    ]
    messages = [frame for frame in client.frames if "sub" in frame]
    assert [(frame["sub"], frame["cursor"]) for frame in messages] == [
        (number, str(event.cursor)) for number, event in expected
    ]
    ends: dict[tuple[int, str, bool], int] = {}
    for place, frame in enumerate(client.frames):
        if "sub" in frame:
            ends[frame["sub"], frame["txid"], frame.get("private", False)] = place
    for (sub, txid, private), place in ends.items():
        if client.frames[place].get("last"):
            continue
        rest = client.frames[place:]
        assert any(f["op"] == "commit" and f["txid"] == txid for f in rest), (sub, txid, private)
    for place, frame in enumerate(client.frames):
        if frame.get("last"):
            key = frame["sub"], frame["txid"], frame.get("private", False)
            assert ends[key] == place, "something follows what is said to be the last"
        if frame["op"] == "commit":
            assert all(f.get("txid") != frame["txid"] for f in client.frames[place + 1 :])


def new_hub(turns: list[Callable[[], None]]) -> Hub:
    hub = Hub(10**9, 60.0, later=turns.append)
    hub.deliver(Batch((), Cursor(0, NONCE)))
    return hub


def some_topics(random: Random) -> frozenset[Topic]:
    return frozenset(random.sample(TOPICS, random.randint(1, 4)))


def read_now_and_then(random: Random, clients: list[Client]) -> None:
    for client in clients:
        if random.random() < 0.2:
            client.is_reading = False
        elif random.random() < 0.5 and not client.is_reading:
            client.read()


@pytest.mark.parametrize("seed", range(12))
def test_the_last_message_of_a_transaction_says_so_or_a_commit_follows(seed: int) -> None:
    random = Random(seed)
    turns: list[Callable[[], None]] = []
    hub = new_hub(turns)
    clients = [Client(hub, some_topics(random), random.choice(USERS)) for _ in range(12)]
    log = written_log(random, ticks=15)
    for page in pages(random, log, most=random.choice([2, 10, 60])):
        hub.deliver(page)
        read_now_and_then(random, clients)
        if turns and random.random() < 0.5:
            turns.pop()()
        one = random.choice(clients)
        cursors = [frame["cursor"] for frame in one.frames]
        if cursors:
            after = Cursor.parse(random.choice(cursors))
            clients.append(Client(hub, one.topics, one.user, after))
    for client in clients:
        client.read()
    while turns:
        turns.pop()()

    for client in clients:
        check(client, log)
    assert any(frame.get("last") for client in clients for frame in client.frames)


@pytest.mark.parametrize("seed", range(4))
def test_clients_that_keep_up_need_no_commit_where_pages_end_with_ticks(seed: int) -> None:
    random = Random(seed)
    hub = new_hub([])
    clients = [Client(hub, some_topics(random), random.choice(USERS)) for _ in range(12)]
    log = written_log(random, ticks=15)
    for tick in range(1, 16):
        events = [event for event in log if event.cursor.tick == tick]
        find_ends(events)
        hub.deliver(Batch(tuple(events), Cursor(tick, NONCE)))

    for client in clients:
        check(client, log)
        assert all("sub" in frame for frame in client.frames)


def test_a_client_that_pauses_with_the_end_of_a_large_transaction_gets_its_commit() -> None:
    hub = new_hub([])
    client = Client(hub, frozenset({Topic("a"), Topic("b")}), None)
    begin, end = (an_event(Random(3), Cursor(1, NONCE, id), 7) for id in (1, 2))
    for event, channel in ((begin, "a"), (end, "b")):
        event.channel, event.recipient = channel, None
    find_ends([begin], unfinished={7})
    find_ends([end], begun={7})
    hub.deliver(Batch((begin,), begin.cursor))
    client.is_reading = False
    hub.deliver(Batch((end,), Cursor(1, NONCE)))
    client.read()

    frames = [(frame.get("channel"), frame.get("last")) for frame in client.frames]
    assert frames == [("a", None), ("b", True), (None, None)]


def test_a_stream_that_is_cut_before_a_commit_gets_it_later() -> None:
    """The id of an event is a place to go on from: the end of a transaction must not lie there."""
    encoding = encoding_of(V1, EVENT_STREAM)
    topics = subscription_set(frozenset({Topic("a")}))
    cursor = Cursor(1, NONCE, 9)
    note = Event(
        *(*cursor, AT, "a", Operation.PUBLISH, None, "1", None, 300, "note", "ann"),
        transaction_id=7,
    )
    note.ends = 3  # what began the transaction was sent before
    message, commit = encoding.encoder([note], topics, "ann")(note)
    assert b'"private":true' in message and b"id: " not in message
    assert b'"op":"commit"' in commit and commit.startswith(b"id: 1.5.9\n")

    alone = note.with_values()
    alone.ends = alone.id
    (message,) = encoding.encoder([alone], topics, "ann")(alone)
    assert message.startswith(b"id: 1.5.9\n")
