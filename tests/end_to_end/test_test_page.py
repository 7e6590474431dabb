"""The page for trying out channels, in a real browser."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import asyncpg
import pytest
from playwright.async_api import Locator, Page, WebSocket, expect

from tests.end_to_end.brain import RunningBrain
from tests.end_to_end.test_page import browser, complaints, page, page_options
from tests.seeds.conftest import Served, impatient, origin
from tests.seeds.impatient import CLIENT_TIMEOUT_SECONDS, HEARTBEAT_SECONDS

__all__ = ["browser", "complaints", "impatient", "origin", "page", "page_options"]

PUBLISH = "SELECT brain.publish('missions', $1, '{\"text\": \"<b>bold</b>\"}')"


@pytest.fixture
def database(shared_database: str) -> str:
    return shared_database


@pytest.fixture
def brain(shared_brain: RunningBrain) -> RunningBrain:
    return shared_brain


@pytest.fixture
def frames(page: Page) -> list[str]:
    """The messages that the server sends to the page."""
    received: list[str] = []

    def follow(socket: WebSocket) -> None:
        socket.on("framereceived", lambda frame: received.append(str(frame)))

    page.on("websocket", follow)
    return received


@pytest.fixture
async def test_page(
    page: Page, brain: RunningBrain, frames: list[str], complaints: list[str]
) -> AsyncIterator[Page]:
    """The page, connected; the browser may log no error to the end."""
    await connect(page, brain)
    yield page
    assert complaints == []


async def connect(page: Page, brain: RunningBrain) -> None:
    await page.goto(f"{brain.http}/static/websocket_test.html")
    await expect_state(page, "Disconnected")
    await press(page, "Connect")
    await expect_state(page, "Connected")
    await expect(lines(page, "received").first).to_contain_text('"type":"connected"')


async def expect_state(page: Page, state: str) -> None:
    await expect(page.get_by_role("status")).to_have_text(state)


async def press(page: Page, name: str) -> None:
    await page.get_by_role("button", name=name, exact=True).click()


async def subscribe(page: Page, channel: str) -> None:
    await page.get_by_label("Channel", exact=True).fill(channel)
    await press(page, "Subscribe")
    await expect(lines(page, "received").last).to_contain_text('"type":"subscribed"')


async def send(page: Page, message: str) -> None:
    await page.get_by_label("Message", exact=True).fill(message)
    await press(page, "Send")


def lines(page: Page, kind: str) -> Locator:
    return page.locator(f"#log li.{kind}")


async def test_it_connects_and_disconnects(test_page: Page) -> None:
    await expect(test_page.get_by_role("button", name="Connect", exact=True)).to_be_disabled()
    await press(test_page, "Disconnect")
    await expect_state(test_page, "Disconnected")
    await expect(lines(test_page, "state")).to_contain_text(["closed: 1005"])
    await send(test_page, '{"type": "ping"}')
    await expect(lines(test_page, "state").last).to_contain_text("not connected")
    await press(test_page, "Connect")
    await expect_state(test_page, "Connected")


async def test_a_channel_is_subscribed_to_and_unsubscribed_from(
    test_page: Page, connection: asyncpg.Connection
) -> None:
    await subscribe(test_page, "missions")
    await connection.execute(PUBLISH, "published")
    await expect(lines(test_page, "received").last).to_contain_text('"type":"published"')

    unsubscribe = test_page.get_by_title("Unsubscribe from missions")
    await unsubscribe.click()
    await expect(lines(test_page, "received").last).to_contain_text('"type":"unsubscribed"')
    await expect(unsubscribe).to_have_count(0)
    await connection.execute(PUBLISH, "unheard")
    await subscribe(test_page, "missions")
    await expect(test_page.locator("#log")).not_to_contain_text('"unheard"')


async def test_a_typed_message_is_sent_and_its_answer_is_shown(test_page: Page) -> None:
    await send(test_page, '{"type":"ping"}')
    await expect(lines(test_page, "sent")).to_contain_text(['{"type":"ping"}'])
    await expect(lines(test_page, "received").last).to_contain_text('"type":"pong"')
    await send(test_page, "no JSON")
    await expect(lines(test_page, "received").last).to_contain_text('"type":"error"')
    await expect_state(test_page, "Connected")


async def test_every_message_is_shown_as_it_came(
    test_page: Page, frames: list[str], connection: asyncpg.Connection
) -> None:
    await subscribe(test_page, "missions")
    for number in range(20):
        await connection.execute(PUBLISH, f"number {number}")
    received = lines(test_page, "received")
    await expect(received).to_have_count(22)
    assert len(frames) == 22
    shown = await received.all_inner_texts()
    assert [text.partition("← ")[2] for text in shown] == frames
    assert '"text":"<b>bold</b>"' in frames[-1].replace(" ", "")


async def test_pings_are_answered_automatically_unless_that_is_switched_off(
    page: Page, impatient: Served, complaints: list[str]
) -> None:
    await connect(page, impatient.brain)
    answers = lines(page, "sent").filter(has_text='{"type":"pong"}')
    # By then, a client that had not answered would be disconnected.
    await expect(
        answers.nth(int((CLIENT_TIMEOUT_SECONDS + 1) / HEARTBEAT_SECONDS))
    ).to_be_attached()
    await expect_state(page, "Connected")

    await page.get_by_label("Answer pings").uncheck()
    await expect(lines(page, "state")).to_contain_text([re.compile("closed: 4408")])
    await expect_state(page, "Disconnected")
    assert complaints == []
