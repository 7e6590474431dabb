"""Subscriptions that begin, resume and end while their client reads now and then: none loses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from random import Random
from typing import Any, cast

import pytest

from brain.auth.origin import Origins
from brain.auth.policy import authority_for
from brain.close_codes import CloseCode
from brain.database.history import HistoryReader
from brain.hub.hub import Hub
from brain.message.cursor import Cursor
from brain.message.event import Batch, Event
from brain.message.rendering import Framing
from brain.presence.tracker import PresenceTracker
from brain.session.admission import Admission, Admitted
from brain.session.connection_limiter import ConnectionLimiter, ConnectionQuotas
from brain.session.registry import SessionRegistry
from brain.session.session import SessionContext, SessionLimits
from brain.session.sources import Sources
from brain.session.topic_session import TopicSession
from brain.settings import Settings
from brain.transport.websocket_frames import WEBSOCKET_FRAMING, texts_of
from tests.hub.test_ends_of_transactions import (
    NONCE,
    TOPICS,
    an_event,
    concerns,
    new_hub,
    written_log,
)

LIMITS = SessionLimits(10_000, 10, 100, 1e9, 1e9)


class Transport:
    """A transport with a client that reads now and then."""

    framing: Framing = WEBSOCKET_FRAMING

    def __init__(self) -> None:
        self.session: TopicSession | None = None
        self.frames: list[dict[str, Any]] = []
        self.is_reading = True
        self.is_paused = False

    def send_now(self, frames: bytes) -> int:
        assert not self.is_paused, "this overtakes what is buffered"
        if not self.is_reading:
            return 0
        self.frames += map(json.loads, texts_of(frames))
        return len(frames)

    def sent_bytes(self) -> None:
        return None

    def write(self, frames: bytes) -> None:
        self.frames += map(json.loads, texts_of(frames))
        if not self.is_reading and not self.is_paused:
            self.is_paused = True
            if self.session is not None:
                self.session.pause_writing()

    def read(self) -> None:
        self.is_reading = True
        if self.is_paused:
            self.is_paused = False
            assert self.session is not None
            self.session.resume_writing()

    def close(self, code: CloseCode, reason: str) -> None:
        pytest.fail(f"{code}: {reason}")


async def new_session(hub: Hub) -> tuple[TopicSession, Transport]:
    settings = Settings()
    authority = authority_for(settings)
    limiter = ConnectionLimiter(ConnectionQuotas(10, 10, 10, 10))
    admission = Admission(authority, limiter, Origins(()))
    identity = await admission.identify(None)
    transport = Transport()
    counted = admission.admit("127.0.0.1", identity)
    context = SessionContext(authority, SessionRegistry(PresenceTracker()), LIMITS, 0.0)
    history = HistoryReader(cast(Any, None), 1.0)
    sources = Sources(hub, history, cast(Callable[..., Any], None))
    access = await authority.read_access(identity, ())
    session = TopicSession(Admitted(transport, identity, counted), context, sources, access)
    transport.session = session
    session.open()
    return session, transport


def send(session: TopicSession, **frame: Any) -> None:
    session.message_received(json.dumps(frame))


def cursors_in(transport: Transport) -> list[str]:
    return [f["cursor"] for f in transport.frames if "cursor" in f]


class Log:
    """What has been delivered so far, and what is left."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.events = written_log(random, ticks=40)
        for event in self.events:
            event.recipient = None
        self.done = 0

    def next_batch(self) -> Batch:
        start = self.done
        tick = self.events[start].cursor.tick
        while self.done < len(self.events) and self.events[self.done].cursor.tick == tick:
            self.done += 1
        return Batch(tuple(self.events[start : self.done]), Cursor(tick, NONCE))


def check(frames: list[dict[str, Any]], log: list[Event]) -> int:
    """Fail unless each subscription got its events, from its cursor on; return how many."""
    filters = {json.dumps({n: {"eq": v} for n, v, _ in t.where}): t.where for t in TOPICS}
    count = 0
    for place, begin in enumerate(frames):
        if begin.get("type") != "subscribed":
            continue
        sub, after = begin["sub"], Cursor.parse(begin["cursor"]).place
        rest = frames[place + 1 :]
        ends = [
            number
            for number, frame in enumerate(rest)
            if frame.get("sub") == sub and frame.get("type") in ("subscribed", "unsubscribed")
        ]
        got = [
            frame["cursor"]
            for frame in rest[: ends[0] if ends else None]
            if frame.get("sub") == sub
            and frame.get("op") in ("insert", "update", "leave", "message")
        ]
        key = begin.get("key")
        topic = next(
            t
            for t in TOPICS
            if (t.channel, t.key, t.where)
            == (
                begin["channel"],
                None if key is None else str(key[0]),
                filters[json.dumps(begin.get("where", {}))],
            )
        )
        due = [str(e.cursor) for e in log if e.cursor.place > after and concerns(topic, e)]
        assert got == (due[: len(got)] if ends else due)
        count += len(got)
    return count


def a_subscription(random: Random) -> dict[str, Any]:
    topic = random.choice(TOPICS)
    frame: dict[str, Any] = {"type": "subscribe", "id": "a", "channel": topic.channel}
    if topic.key:
        frame["key"] = [int(topic.key)]
    if topic.where:
        frame["where"] = {name: value for name, value, _ in topic.where}
    return frame


def act(random: Random, session: TopicSession, transport: Transport) -> None:
    """Do what a client may do."""
    match random.randrange(6):
        case 0:
            send(session, **a_subscription(random))
        case 1 | 2:
            after = random.choice(cursors_in(transport))
            send(session, after=after, **a_subscription(random))
        case 3:
            subs = [f["sub"] for f in transport.frames if f.get("type") == "subscribed"]
            send(session, type="unsubscribe", id="b", sub=random.choice(subs or [1]))
        case 4:
            transport.is_reading = False
        case 5:
            transport.read()


@pytest.mark.parametrize("seed", range(12))
async def test_each_subscription_gets_all_since_its_cursor_once_and_in_order(seed: int) -> None:
    random = Random(seed)
    turns: list[Callable[[], None]] = []
    hub = new_hub(turns)
    session, transport = await new_session(hub)
    log = Log(random)
    while log.done < len(log.events):
        hub.deliver(log.next_batch())
        for _ in range(random.randint(0, 3)):
            act(random, session, transport)
        while any(task.get_name() == "commands" for task in asyncio.all_tasks()):
            await asyncio.sleep(0)
        if turns and random.random() < 0.5:
            turns.pop(0)()
    while turns or not transport.is_reading:
        transport.read()
        while turns:
            turns.pop(0)()

    assert check(transport.frames, log.events) > 100
    session.connection_lost()


async def test_subscriptions_that_catch_up_before_their_connection_lose_nothing() -> None:
    turns: list[Callable[[], None]] = []
    hub = new_hub(turns)
    session, transport = await new_session(hub)
    events = [an_event(Random(1), Cursor(tick, NONCE, tick), tick) for tick in (1, 2, 3)]
    for event, channel in zip(events, "bba", strict=True):
        event.channel, event.key, event.recipient = channel, "[1]", None
    first, second, third = [Batch((event,), Cursor(event.id, NONCE)) for event in events]

    async def subscribe(**frame: Any) -> None:
        send(session, type="subscribe", id="a", **frame)
        while any(task.get_name() == "commands" for task in asyncio.all_tasks()):
            await asyncio.sleep(0)

    await subscribe(channel="b")
    transport.is_reading = False
    hub.deliver(first)
    hub.deliver(second)
    for key in (None, [1]):
        await subscribe(channel="a", after=str(hub.cursor), key=key)
    transport.read()
    transport.is_reading = False
    hub.deliver(third)
    transport.read()
    while turns:
        turns.pop(0)()

    ends = [frame["cursor"] for frame in transport.frames if frame.get("last", frame.get("txid"))]
    assert ends == [str(events[0].cursor), str(events[1].cursor), *[str(events[2].cursor)] * 2]
    session.connection_lost()
