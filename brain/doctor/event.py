"""A test event: from its commit through the log and a node to a real client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg

from brain.client import Brain, BrainClientError, Refused, Subscription
from brain.client.link import HandshakeRefused, LinkLost
from brain.client.websocket import WebSocketLink
from brain.doctor.address import Place
from brain.doctor.check import check
from brain.doctor.disk import disk_full
from brain.doctor.examination import Examination
from brain.doctor.finding import Finding, NotChecked, failure, ok, warning

OPEN_SECONDS = 4.0
COMMIT_SECONDS = 4.0
READ_SECONDS = 8.0
DELIVERY_SECONDS = 4.0
SLOW_MILLISECONDS = 1000.0
# No client knows the channel: its name is drawn anew, and begins with that of nobody's table.
CHANNEL_PREFIX = "doctor-"
TYPE = "doctor_test"
HAS_READ = """
    SELECT pg_visible_in_snapshot($1::text::xid8, t.snapshot) FROM brain.ticks t
     ORDER BY t.id DESC LIMIT 1
"""


class Receiver:
    """A client that waits for the test event: by a subscription, or by `until`."""

    def __init__(self, examination: Examination, channel: str) -> None:
        self._place = Place.of(examination.url)
        self._token = examination.request.token
        self._channel = channel
        self._resources = examination.resources
        self._link: WebSocketLink | None = None
        self._task: asyncio.Task[float] | None = None
        self.way = "a subscription"

    async def open(self) -> None:
        """Subscribe. Raises `BrainClientError`, LinkLost, HandshakeRefused and TimeoutError."""
        brain = Brain(self._place.http, token=self._token)
        await self._resources.enter_async_context(brain)
        task = asyncio.create_task(received(brain.subscribe(self._channel)))
        self._resources.push_async_callback(ended, task)
        try:
            await live(brain, task)
        except TimeoutError:
            raise TimeoutError(brain.status.why or "no answer") from None
        except Refused as refused:
            if refused.code != "not_allowed":
                raise
            self.way = "until, since the token may not read the channel of the test event"
            self._link = await WebSocketLink.open(f"{self._place.websocket}/ws/v1", self._token)
            self._resources.push_async_callback(self._link.close)
            await self._link.receive()
        else:
            self._task = task

    async def arrived(self, transaction: str) -> float:
        """Return when the event has arrived, by time.monotonic()."""
        if self._task is not None:
            return await asyncio.shield(self._task)
        assert self._link is not None
        await self._link.send({"type": "until", "id": "doctor", "txid": transaction})
        while (await self._link.receive()).get("id") != "doctor":
            pass
        return time.monotonic()


async def live(brain: Brain, receiving: asyncio.Task[float]) -> None:
    """Return once the subscription is live; raises why its task has ended, or TimeoutError."""

    async def is_live() -> None:
        async for status in brain.statuses():
            if status.state == "live":
                return

    becoming = asyncio.create_task(is_live())
    try:
        async with asyncio.timeout(OPEN_SECONDS):
            await asyncio.wait({becoming, receiving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await ended(becoming)
    if receiving.done():
        receiving.result()


async def received(subscription: Subscription[Any]) -> float:
    async for change in subscription:
        if change.op == "message":
            return time.monotonic()
    raise LinkLost("the subscription ended")


async def ended(task: asyncio.Future[Any]) -> None:
    """End a task, whatever it is doing."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task


@dataclass(slots=True)
class LoggedEvent:
    """What became of the test event."""

    transaction: str
    sent_at: float
    """When COMMIT was sent, by time.monotonic()."""
    receiver: Receiver | None
    why_no_receiver: str | None


def event_of(examination: Examination) -> LoggedEvent:
    """Return the test event that was logged. Raises `NotChecked`."""
    event: LoggedEvent | None = examination.shared.get("test event")
    if event is None:
        raise NotChecked("no test event was logged", "see event.logged")
    return event


@check("event.logged", most_seconds=OPEN_SECONDS + COMMIT_SECONDS + 1)
async def logged(examination: Examination) -> Finding:
    """A test event can be written to the log."""
    connection = await examination.migrated()
    channel = CHANNEL_PREFIX + uuid4().hex
    receiver, why_not = await opened_receiver(examination, channel)
    data = json.dumps({"from": "brain doctor"})
    try:
        async with asyncio.timeout(COMMIT_SECONDS):
            async with connection.transaction():
                await connection.execute(
                    "SELECT brain.publish($1, $2, $3::text::jsonb)", channel, TYPE, data
                )
                transaction = await connection.fetchval("SELECT pg_current_xact_id()::text")
                sent_at = time.monotonic()
    except TimeoutError:
        examination.drop_connection()
        return failure(
            f"an event is not committed within {COMMIT_SECONDS:g} s",
            "see database.locks and database.disk",
        )
    except asyncpg.DiskFullError:
        return disk_full()
    examination.shared["test event"] = LoggedEvent(transaction, sent_at, receiver, why_not)
    milliseconds = round((time.monotonic() - sent_at) * 1000, 1)
    return ok(
        f"a test event was committed to the log in {milliseconds:g} ms", milliseconds=milliseconds
    )


async def opened_receiver(
    examination: Examination, channel: str
) -> tuple[Receiver | None, str | None]:
    """Return a client that waits for the event, or why there is none."""
    try:
        receiver = Receiver(examination, channel)
        await receiver.open()
    except NotChecked:
        return None, None
    except TimeoutError as error:
        return None, f"none was granted within {OPEN_SECONDS:g} s: {error}"
    except (BrainClientError, LinkLost, HandshakeRefused, OSError, ValueError) as error:
        return None, str(error) or type(error).__name__
    return receiver, None


@check("event.read", most_seconds=READ_SECONDS + 1)
async def read(examination: Examination) -> Finding:
    """A node reads the test event from the log."""
    event = event_of(examination)
    if not examination.shared.get("nodes"):
        raise NotChecked("no node serves this database", "see nodes.alive")
    connection = await examination.connection()
    deadline = time.monotonic() + READ_SECONDS
    while not await connection.fetchval(HAS_READ, event.transaction):
        if time.monotonic() > deadline:
            return failure(
                f"no node has read the test event within {READ_SECONDS:g} s: ticks stand still",
                "see database.locks; if there is none, the listeners hang: /readyz and the logs of"
                " the nodes say why, and restarting them ends it",
            )
        await asyncio.sleep(0.02)
    seconds = time.monotonic() - event.sent_at
    return ok(f"a node has read the test event, {seconds * 1000:.0f} ms after its commit at most")


@check("event.delivered", most_seconds=DELIVERY_SECONDS + 1)
async def delivered(examination: Examination) -> Finding:
    """The test event arrives at a real client, through the address that clients use."""
    place = Place.of(examination.url)
    event = event_of(examination)
    if event.receiver is None:
        return failure(
            f"no client can subscribe at {place.http}: {event.why_no_receiver}",
            "see the connection.… and token.… checks",
        )
    try:
        async with asyncio.timeout(DELIVERY_SECONDS):
            arrived_at = await event.receiver.arrived(event.transaction)
    except TimeoutError:
        return failure(
            f"the test event does not arrive at a client of {place.http} within"
            f" {DELIVERY_SECONDS:g} s",
            "is it the same database (connection.database), does a node read it (event.read), does"
            " a proxy hold it back (connection.sse)?",
        )
    except (BrainClientError, LinkLost, OSError, ValueError) as error:
        return failure(f"the connection of a client broke: {error}", "see the log of the proxy")
    milliseconds = round((arrived_at - event.sent_at) * 1000, 1)
    text = f"the test event arrived at a client {milliseconds:g} ms after its commit"
    details = [f"by {event.receiver.way}"]
    if milliseconds > SLOW_MILLISECONDS:
        return warning(
            text,
            "the disk, the processor or the proxy is slow: see database.disk, metrics.event_loop",
            details,
            milliseconds=milliseconds,
        )
    return ok(text, details, milliseconds=milliseconds)
